//! What a task asks for: its class, and within it a priority or a weight.

use core::fmt;
use core::str::FromStr;

/// A real-time priority, 1 to 99; higher ones go first. Linux: `sched_priority`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Priority(u8);

impl Priority {
    /// The lowest priority.
    pub const MIN: Priority = Priority(1);
    /// The highest priority.
    pub const MAX: Priority = Priority(99);

    /// The priority of that number, if it is one.
    ///
    /// ```
    /// use kernel::sched::policy::Priority;
    /// assert!(Priority::new(99) > Priority::new(1));
    /// assert_eq!(Priority::new(0), None);
    /// ```
    pub const fn new(number: u8) -> Option<Priority> {
        if matches!(number, 1..=99) { Some(Priority(number)) } else { None }
    }

    /// Its number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// How nice a task of the fair class is to the others, -20 to 19. Each step is a factor of 1.25 between what two tasks
/// get. Linux: `nice`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Nice(i8);

impl Nice {
    /// Gets the most.
    pub const MIN: Nice = Nice(-20);
    /// Gets the least.
    pub const MAX: Nice = Nice(19);

    /// The nice value of that number, if it is one.
    pub const fn new(number: i8) -> Option<Nice> {
        if matches!(number, -20..=19) { Some(Nice(number)) } else { None }
    }

    /// Its number.
    pub const fn get(self) -> i8 {
        self.0
    }

    /// What the task's share of a CPU is proportional to: 1,024 for 0, 1.25 times as much for each step down.
    ///
    /// ```
    /// use kernel::sched::policy::Nice;
    /// let weight = |nice| Nice::new(nice).unwrap().weight();
    /// assert_eq!(weight(0), 1024);
    /// assert_eq!(weight(1), 819);
    /// assert_eq!(weight(-1), 1280);
    /// ```
    pub const fn weight(self) -> u32 {
        WEIGHTS[(self.0 + 20) as usize]
    }
}

/// The weight of [`Nice`] 0.
pub const WEIGHT_OF_NICE_0: u32 = 1024;

const WEIGHTS: [u32; 40] = {
    let mut weights = [0; 40];
    let mut nice = -20;
    while nice < 20 {
        weights[(nice + 20) as usize] = weight(nice);
        nice += 1;
    }
    weights
};

/// 1,024 times the power of 5/4, rounded.
const fn weight(nice: i32) -> u32 {
    let fives = 5_u64.pow(nice.unsigned_abs());
    let fours = 4_u64.pow(nice.unsigned_abs());
    let (up, down) = if nice < 0 { (fives, fours) } else { (fours, fives) };
    ((WEIGHT_OF_NICE_0 as u64 * up + down / 2) / down) as u32
}

/// Whom a CPU runs when several want it.
///
/// ```
/// use kernel::sched::policy::Policy;
/// assert_eq!("fifo:50".parse(), Ok(Policy::fifo(50)));
/// assert_eq!("nice:-5".parse(), Ok(Policy::fair(-5)));
/// assert!("rr:100".parse::<Policy>().is_err());
/// assert_eq!(Policy::round_robin(7).to_string(), "rr:7");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Policy {
    /// Before everything else, for as long as it likes: what stops a machine.
    Stop,
    /// Real-time: runs until it blocks, yields, or a higher priority comes. Linux: `SCHED_FIFO`.
    Fifo(Priority),
    /// The same, but takes turns with its equals after [`ROUND_ROBIN_SLICE_NS`](super::ROUND_ROBIN_SLICE_NS). Linux:
    /// `SCHED_RR`.
    RoundRobin(Priority),
    /// A share of what is left, by weight. Linux: `SCHED_NORMAL`.
    Fair(Nice),
}

impl Policy {
    /// The fair class.
    ///
    /// # Panics
    /// If `nice` is not in -20..=19; in a constant, when compiled. [`Nice::new`] is the form that does not.
    #[track_caller]
    pub const fn fair(nice: i8) -> Policy {
        Policy::Fair(Nice::new(nice).expect("a nice value is -20 to 19"))
    }

    /// Real-time, first in first out.
    ///
    /// # Panics
    /// If `priority` is not in 1..=99; in a constant, when compiled. [`Priority::new`] is the form that does not.
    #[track_caller]
    pub const fn fifo(priority: u8) -> Policy {
        Policy::Fifo(Priority::new(priority).expect("a real-time priority is 1 to 99"))
    }

    /// Real-time, taking turns.
    ///
    /// # Panics
    /// As [`fifo`](Policy::fifo).
    #[track_caller]
    pub const fn round_robin(priority: u8) -> Policy {
        Policy::RoundRobin(Priority::new(priority).expect("a real-time priority is 1 to 99"))
    }

    /// The level at which tasks of this policy compete.
    #[inline]
    pub const fn level(self) -> Level {
        match self {
            Policy::Stop => Level::STOP,
            Policy::Fifo(priority) | Policy::RoundRobin(priority) => Level(Level::FAIR.0 + priority.0),
            Policy::Fair(_) => Level::FAIR,
        }
    }

    /// The policy in two bytes, to be read by everybody at any time.
    pub(super) const fn encode(self) -> u16 {
        let (class, number) = match self {
            Policy::Stop => (0, 0),
            Policy::Fifo(priority) => (1, priority.0),
            Policy::RoundRobin(priority) => (2, priority.0),
            Policy::Fair(nice) => (3, nice.0.cast_unsigned()),
        };
        u16::from_be_bytes([class, number])
    }

    pub(super) const fn decode(word: u16) -> Policy {
        let [class, number] = word.to_be_bytes();
        match class {
            0 => Policy::Stop,
            1 => Policy::Fifo(Priority(number)),
            2 => Policy::RoundRobin(Priority(number)),
            _ => Policy::Fair(Nice(number.cast_signed())),
        }
    }
}

impl Default for Policy {
    fn default() -> Policy {
        Policy::Fair(Nice(0))
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Policy::Stop => f.write_str("stop"),
            Policy::Fifo(priority) => write!(f, "fifo:{}", priority.0),
            Policy::RoundRobin(priority) => write!(f, "rr:{}", priority.0),
            Policy::Fair(nice) => write!(f, "nice:{}", nice.0),
        }
    }
}

/// A word is not the name of a policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParsePolicyError;

impl fmt::Display for ParsePolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a policy is `stop`, `fifo:1` to `fifo:99`, `rr:1` to `rr:99`, or `nice:-20` to `nice:19`",
        )
    }
}

impl core::error::Error for ParsePolicyError {}

impl FromStr for Policy {
    type Err = ParsePolicyError;

    fn from_str(word: &str) -> Result<Policy, ParsePolicyError> {
        let priority = |number: &str| number.parse().ok().and_then(Priority::new);
        let policy = match word.split_once(':') {
            None if word == "stop" => Some(Policy::Stop),
            Some(("fifo", number)) => priority(number).map(Policy::Fifo),
            Some(("rr", number)) => priority(number).map(Policy::RoundRobin),
            Some(("nice", number)) => number.parse().ok().and_then(Nice::new).map(Policy::Fair),
            _ => None,
        };
        policy.ok_or(ParsePolicyError)
    }
}

/// How urgent what runs or waits on a CPU is: idle, fair, the real-time priorities, stop, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Level(pub(super) u8);

impl Level {
    /// Nothing is there to run.
    pub const IDLE: Level = Level(0);
    /// The fair class.
    pub const FAIR: Level = Level(1);
    /// The stop class.
    pub const STOP: Level = Level(101);

    /// Whether this is one of the real-time priorities.
    #[inline]
    pub const fn is_real_time(self) -> bool {
        self.0 > Level::FAIR.0 && self.0 < Level::STOP.0
    }
}
