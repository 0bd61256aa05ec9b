//! Which frequency to believe, when several are stated or measured.

use core::fmt;

use super::calibrate::Failure;
use super::judge::{Verdict, difference_ppm};
use super::reference::Kind;
use crate::x86_64::cpuid::HzClaim;

/// What measuring the TSC by one reference gave.
pub type Measured = (Kind, Result<Verdict, Failure>);

/// The TSC's frequency, and why it is believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    /// In Hz.
    pub hz: u64,
    /// Who says so.
    pub origin: Origin,
    /// What an independent measurement says about it.
    pub check: Check,
}

/// Where a frequency comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The processor or the hypervisor states it.
    Claimed(HzClaim),
    /// It was measured.
    Measured(Kind),
}

/// How a second opinion compares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Check {
    /// It differs by this many ppm, which is within what the two can know.
    Agrees(Kind, u64),
    /// It differs by this many ppm.
    Differs(Kind, u64),
    /// A stated frequency was so far from what two references measured that it was dropped. Its value in Hz.
    ClaimDropped(HzClaim, u64),
    /// There is none.
    Alone,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Claimed(claim) => write!(f, "stated by {claim}"),
            Origin::Measured(kind) => write!(f, "measured by {kind}"),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Check::Agrees(kind, ppm) => write!(f, "{kind} agrees within {ppm} ppm"),
            Check::Differs(kind, ppm) => write!(f, "{kind} differs by {ppm} ppm"),
            Check::ClaimDropped(claim, hz) => {
                write!(f, "{claim} states {hz} Hz, which the measurements refute")
            }
            Check::Alone => f.write_str("not cross-checked"),
        }
    }
}

/// Two measurements further apart than this contradict each other.
const AGREEMENT_PPM: u64 = 1_000;
/// A claim may be this far from a measurement: 1 % covers a base frequency rounded to MHz.
const CLAIM_PPM: u64 = 10_000;

/// Decides. A claim wins unless a measurement contradicts it: a hypervisor may pass on the leaves of a host on which the
/// guest no longer runs. Without a claim the best reference wins that another one confirms, or else the best one.
/// `measured` is in order of preference. `None` if nobody knows.
pub fn choose(claim: Option<(u64, HzClaim)>, measured: &[Measured]) -> Option<Choice> {
    let good = || measured.iter().filter_map(|(kind, result)| Some((*kind, result.ok()?)));
    if let Some((hz, claim)) = claim {
        let origin = Origin::Claimed(claim);
        let check = |(kind, verdict): (Kind, Verdict)| (kind, difference_ppm(verdict.hz, hz));
        match good().map(check).min_by_key(|(_, ppm)| *ppm) {
            None => return Some(Choice { hz, origin, check: Check::Alone }),
            Some((kind, ppm)) if ppm <= CLAIM_PPM => {
                return Some(Choice { hz, origin, check: Check::Agrees(kind, ppm) });
            }
            Some(_) => {
                let kept = choose(None, measured)?;
                return Some(Choice { check: Check::ClaimDropped(claim, hz), ..kept });
            }
        }
    }
    let confirmed = good().find_map(|(kind, verdict)| {
        let others = good().filter(|(other, _)| *other != kind);
        let (by, ppm) = others
            .map(|(other, its)| (other, difference_ppm(verdict.hz, its.hz)))
            .find(|(_, ppm)| *ppm <= AGREEMENT_PPM)?;
        Some(Choice { hz: verdict.hz, origin: Origin::Measured(kind), check: Check::Agrees(by, ppm) })
    });
    confirmed.or_else(|| {
        let (kind, verdict) = good().next()?;
        let second = good().nth(1);
        let check =
            second.map_or(Check::Alone, |(by, its)| Check::Differs(by, difference_ppm(verdict.hz, its.hz)));
        Some(Choice { hz: verdict.hz, origin: Origin::Measured(kind), check })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x86_64::clock::judge::Undecided;

    const GHZ: u64 = 1_000_000_000;

    fn ok(kind: Kind, hz: u64) -> Measured {
        (kind, Ok(Verdict { hz, spread_ppm: 10, used: 4, rejected: 0 }))
    }

    fn failed(kind: Kind) -> Measured {
        (kind, Err(Failure::Undecided(Undecided { samples: 16 })))
    }

    #[test]
    fn a_claim_wins_unless_it_is_refuted() {
        let claim = Some((2 * GHZ, HzClaim::Hypervisor));
        let near = choose(claim, &[ok(Kind::Hpet, 2_001_000_000)]).unwrap();
        assert_eq!((near.hz, near.check), (2 * GHZ, Check::Agrees(Kind::Hpet, 499)));
        assert_eq!(choose(claim, &[]).unwrap().check, Check::Alone);
        assert_eq!(choose(claim, &[failed(Kind::Pit)]).unwrap().hz, 2 * GHZ);
        let far = choose(claim, &[ok(Kind::Hpet, 3 * GHZ), ok(Kind::Pit, 3 * GHZ + 5)]).unwrap();
        assert_eq!((far.hz, far.origin), (3 * GHZ, Origin::Measured(Kind::Hpet)));
        assert_eq!(far.check, Check::ClaimDropped(HzClaim::Hypervisor, 2 * GHZ));
    }

    #[test]
    fn two_references_outvote_a_third() {
        let measured =
            [ok(Kind::Hpet, 275_000_000), ok(Kind::PmTimer, 2_596_000_000), ok(Kind::Pit, 2_596_100_000)];
        let choice = choose(None, &measured).unwrap();
        assert_eq!((choice.hz, choice.origin), (2_596_000_000, Origin::Measured(Kind::PmTimer)));
        assert_eq!(choice.check, Check::Agrees(Kind::Pit, 38));
    }

    #[test]
    fn without_agreement_the_best_reference_is_used_and_it_is_said() {
        let choice = choose(None, &[ok(Kind::Hpet, GHZ), ok(Kind::Pit, 2 * GHZ)]).unwrap();
        assert_eq!((choice.hz, choice.check), (GHZ, Check::Differs(Kind::Pit, 1_000_000)));
        assert_eq!(choose(None, &[failed(Kind::Hpet), ok(Kind::Pit, GHZ)]).unwrap().check, Check::Alone);
        assert_eq!(choose(None, &[failed(Kind::Hpet)]), None);
        assert_eq!(choose(None, &[]), None);
    }
}
