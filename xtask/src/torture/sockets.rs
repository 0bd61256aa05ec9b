//! Where CPUs are plugged in: which places a guest has, and what is in them.
//!
//! A CPU is plugged in at once. One that is pulled out is only asked for: the guest takes it out of use and gives it back, and
//! until then its place is taken. Two facts about emulation bound what can be done:
//!
//! * QEMU has contexts for as many threads as there are places, and does not use them twice: with `maxcpus=8` and 2 CPUs at
//!   the start it ends itself when the seventh CPU is plugged in, even if six have gone.
//! * QEMU 7.2 writes to the memory of a CPU that has gone when the next one comes. There all come before the first one goes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fastrand::Rng;
use serde_json::{Value, json};

use super::qmp::Qmp;

/// The first release known to survive a CPU that comes after another has gone.
const SURVIVES: u64 = 10;

/// A guest may refuse; it is asked again.
const PATIENCE: Duration = Duration::from_secs(3);

/// How many places are used where one may be taken again.
const FEW: usize = 6;

/// A place for a CPU.
#[derive(Clone, Debug)]
struct Socket {
    /// What QEMU wants to be told to plug a CPU in here.
    arguments: Value,
    /// What the CPU is called that was plugged in here and is not known to have gone.
    taken_by: Option<String>,
    asked: Option<Instant>,
}

/// The places that were empty when the guest started.
#[derive(Debug)]
pub(super) struct Sockets {
    sockets: Vec<Socket>,
    rng: Rng,
    /// How many can still come.
    left: usize,
    /// Whether one may come after another has been asked for.
    may_mix: bool,
    number: u64,
    asked_for_one: bool,
}

impl Sockets {
    /// Asks QEMU for them.
    pub(super) fn new(qmp: &mut Qmp, seed: u64) -> Result<Self> {
        let version = qmp.ask("query-version", json!({}))?;
        let major = version["qemu"]["major"].as_u64().context("QEMU does not say which release it is")?;
        let places = qmp.ask("query-hotpluggable-cpus", json!({}))?;
        Ok(Self::from_answer(&places, major >= SURVIVES, seed))
    }

    fn from_answer(places: &Value, may_mix: bool, seed: u64) -> Self {
        let empty = places.as_array().into_iter().flatten().filter(|place| place["qom-path"].is_null());
        let mut sockets: Vec<Socket> = empty
            .map(|place| {
                let mut arguments = place["props"].clone();
                arguments["driver"] = place["type"].clone();
                Socket { arguments, taken_by: None, asked: None }
            })
            .collect();
        let left = sockets.len();
        if may_mix {
            // So that a place is taken again soon.
            sockets.truncate(FEW);
        }
        Self { sockets, rng: Rng::with_seed(seed ^ 0x50c7), left, may_mix, number: 0, asked_for_one: false }
    }

    /// Plugs a CPU in, or asks for one. False if there is nothing to do until the guest has given one back.
    pub(super) fn change(&mut self, qmp: &mut Qmp) -> Result<bool> {
        self.look(&qmp.ask("query-hotpluggable-cpus", json!({}))?);
        match self.draw() {
            None => Ok(false),
            Some(Next::Plug(at)) => {
                let name = format!("plugged{}", self.number);
                let mut arguments = self.sockets[at].arguments.clone();
                arguments["id"] = json!(name);
                qmp.ask("device_add", arguments)?;
                self.number += 1;
                self.left -= 1;
                self.sockets[at].taken_by = Some(name);
                Ok(true)
            }
            Some(Next::Ask(at)) => {
                if let Some(name) = &self.sockets[at].taken_by {
                    qmp.ask("device_del", json!({ "id": name }))?;
                }
                self.sockets[at].asked = Some(Instant::now());
                self.asked_for_one = true;
                Ok(true)
            }
        }
    }

    /// Learns which have gone.
    fn look(&mut self, places: &Value) {
        let places = places.as_array().map_or(&[][..], Vec::as_slice);
        for socket in self.sockets.iter_mut().filter(|socket| socket.asked.is_some()) {
            let is_here = |place: &&Value| {
                let props = place["props"].as_object();
                props.is_some_and(|props| props.iter().all(|(key, value)| socket.arguments[key] == *value))
            };
            let place = places.iter().find(is_here);
            if place.is_none_or(|place| place["qom-path"].is_null()) {
                (socket.taken_by, socket.asked) = (None, None);
            }
        }
    }

    /// What happens next.
    fn draw(&mut self) -> Option<Next> {
        let those = |wanted: &dyn Fn(&Socket) -> bool| -> Vec<usize> {
            (0..self.sockets.len()).filter(|at| wanted(&self.sockets[*at])).collect()
        };
        let empty = those(&|socket| socket.taken_by.is_none());
        let full = those(&|socket| {
            socket.taken_by.is_some() && socket.asked.is_none_or(|at| at.elapsed() > PATIENCE)
        });
        let may_plug = self.left > 0 && !empty.is_empty() && (self.may_mix || !self.asked_for_one);
        let may_ask =
            !full.is_empty() && (self.may_mix || self.left == 0 || empty.is_empty() || self.asked_for_one);
        let plug = match (may_plug, may_ask) {
            (false, false) => return None,
            (plug, ask) if plug != ask => plug,
            // Few at a time, so that there is something to be done for long.
            _ => self.rng.usize(..4) >= full.len(),
        };
        let from = if plug { &empty } else { &full };
        let at = from[self.rng.usize(..from.len())];
        Some(if plug { Next::Plug(at) } else { Next::Ask(at) })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Plug(usize),
    Ask(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What QEMU answers with CPUs in these places.
    fn answer(full: &[bool]) -> Value {
        let place = |(core, full): (usize, &bool)| {
            let mut place = json!({
                "props": { "socket-id": 0, "core-id": core, "thread-id": 0 },
                "vcpus-count": 1,
                "type": "max-x86_64-cpu",
            });
            if *full {
                place["qom-path"] = json!("/machine/peripheral/x");
            }
            place
        };
        full.iter().enumerate().map(place).collect()
    }

    /// Plays a guest that gives back after a while what it is asked for. Returns what happened.
    fn play(may_mix: bool, seed: u64) -> Vec<Next> {
        let mut places = vec![true, true, false, false, false, false];
        let mut sockets = Sockets::from_answer(&answer(&places), may_mix, seed);
        let (mut story, mut leaving) = (Vec::new(), Vec::new());
        for turn in 0..100 {
            sockets.look(&answer(&places));
            match sockets.draw() {
                Some(Next::Plug(at)) => {
                    assert!(!places[at + 2], "there is one");
                    places[at + 2] = true;
                    sockets.left -= 1;
                    sockets.sockets[at].taken_by = Some("x".to_owned());
                    story.push(Next::Plug(at));
                }
                Some(Next::Ask(at)) => {
                    assert!(places[at + 2] && !leaving.contains(&at));
                    leaving.push(at);
                    sockets.sockets[at].asked = Some(Instant::now());
                    sockets.asked_for_one = true;
                    story.push(Next::Ask(at));
                }
                None if leaving.is_empty() => break,
                None => (),
            }
            if turn % 3 == 0 && !leaving.is_empty() {
                places[leaving.remove(0) + 2] = false;
            }
        }
        story
    }

    #[test]
    fn as_many_come_as_there_are_places_and_all_go() {
        for seed in 0..50 {
            for may_mix in [false, true] {
                let story = play(may_mix, seed);
                let plugs = story.iter().filter(|next| matches!(next, Next::Plug(_))).count();
                assert_eq!((plugs, story.len()), (4, 8), "{story:?}");
            }
        }
    }

    #[test]
    fn an_old_qemu_gets_all_before_one_goes() {
        for seed in 0..50 {
            let story = play(false, seed);
            assert!(story[..4].iter().all(|next| matches!(next, Next::Plug(_))), "{story:?}");
        }
        assert!((0..50).any(|seed| play(true, seed)[..4].iter().any(|next| matches!(next, Next::Ask(_)))));
    }

    #[test]
    fn a_place_is_told_in_qemus_own_words() {
        let sockets = Sockets::from_answer(&answer(&[true, false]), true, 1);
        let want = json!({ "socket-id": 0, "core-id": 1, "thread-id": 0, "driver": "max-x86_64-cpu" });
        assert_eq!((sockets.sockets.len(), &sockets.sockets[0].arguments), (1, &want));
    }
}
