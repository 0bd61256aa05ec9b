//! Handing values from task to task, a bounded number at a time.
//!
//! Senders and receivers meet under one lock. A sender that finds a receiver waiting puts the value into that receiver's
//! hands; a receiver that makes room moves the first waiting sender's value into the ring. So values arrive in the order
//! in which they were sent, tasks are served in order of arrival, and nobody is woken to find that another was faster.

use core::fmt;
use core::mem::MaybeUninit;
use core::panic::Location;

use hal::{Native, Platform};

use crate::lockdep::{Level, Map, WaitType};
use crate::primitives::const_fn;
use crate::spin::SpinLock;
use crate::wait::{Limits, Request, WaitError, Waiters, sleep};
use crate::{Irq, TaskCx};

/// A queue of up to `N` values that any number of tasks send to and receive from. With `N` of 0 a sender waits for its
/// receiver.
///
/// Linux: `kfifo` with a wait queue. Cost without waiting: one lock and one move of the value.
///
/// ```
/// use sync::{Channel, TaskCx};
/// static REQUESTS: Channel<u32, 4> = Channel::new();
///
/// let server = std::thread::spawn(|| {
///     // SAFETY: this thread is a task, and this its only token.
///     let mut cx = unsafe { TaskCx::new() };
///     let mut sum = 0;
///     while let Ok(request) = REQUESTS.receive(&mut cx) {
///         sum += request;
///     }
///     sum
/// });
/// // SAFETY: as above.
/// let mut cx = unsafe { TaskCx::new() };
/// for n in 1..=10 {
///     REQUESTS.send(n, &mut cx).unwrap();
/// }
/// REQUESTS.close();
/// assert_eq!(server.join().unwrap(), 55);
/// ```
pub struct Channel<T, const N: usize, P: Platform = Native> {
    /// What senders wait for and receivers bring about.
    room: Map,
    /// What receivers wait for and senders bring about.
    values: Map,
    state: SpinLock<State<T, N, P>, Irq<P>>,
}

/// # Invariants
/// * The `len` slots from `first` on (round the end) hold values.
/// * Receivers wait only while there is no value, senders only while the ring is full; nobody while it is closed.
/// * A waiting sender's slot is an `Option<T>` with a value, a waiting receiver's one without.
struct State<T, const N: usize, P: Platform> {
    slots: [MaybeUninit<T>; N],
    first: usize,
    len: usize,
    closed: bool,
    senders: Waiters<P>,
    receivers: Waiters<P>,
}

/// Why nothing was sent. The value comes back.
///
/// ```
/// use sync::{Channel, SendError};
/// let channel: Channel<&str, 1> = Channel::new();
/// assert_eq!(channel.try_send("in"), Ok(()));
/// assert_eq!(channel.try_send("back"), Err(SendError::Full("back")));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendError<T> {
    /// The channel was closed.
    Closed(T),
    /// There is no room, and the call was not to wait.
    Full(T),
    /// A limit ended the wait.
    Wait(WaitError, T),
}

/// Why nothing was received.
///
/// ```
/// use sync::{Channel, ReceiveError};
/// let channel: Channel<u32, 1> = Channel::new();
/// assert_eq!(channel.try_receive(), Err(ReceiveError::Empty));
/// channel.close();
/// assert_eq!(channel.try_receive(), Err(ReceiveError::Closed));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReceiveError {
    /// The channel was closed, and everything that was sent before has been received.
    Closed,
    /// There is no value, and the call was not to wait.
    Empty,
    /// A limit ended the wait.
    Wait(WaitError),
}

impl<T, const N: usize, P: Platform> State<T, N, P> {
    fn put(&mut self, value: T) {
        let at = (self.first + self.len) % N;
        self.slots[at].write(value);
        self.len += 1;
    }

    /// Sends without waiting: to a waiting receiver, or into the ring.
    fn offer(&mut self, value: T) -> Result<(), SendError<T>> {
        if self.closed {
            return Err(SendError::Closed(value));
        }
        let mut value = Some(value);
        let served = self.receivers.serve_front(|slot| {
            // SAFETY: a waiting receiver's slot is an `Option<T>` on its stack, which stays until it is signalled.
            unsafe { *slot.cast::<Option<T>>() = value.take() };
        });
        match value {
            Some(value) if self.len < N => {
                self.put(value);
                Ok(())
            }
            Some(value) => Err(SendError::Full(value)),
            None => {
                debug_assert!(served.is_some());
                Ok(())
            }
        }
    }

    /// Receives without waiting, and lets the first waiting sender's value move up.
    fn take(&mut self) -> Result<T, ReceiveError> {
        let from_sender = |slot: *mut ()| {
            // SAFETY: a waiting sender's slot is an `Option<T>` on its stack, which stays until it is signalled.
            unsafe { (*slot.cast::<Option<T>>()).take() }
        };
        if self.len == 0 {
            // Without a ring the value comes from the sender itself.
            let value = self.senders.serve_front(from_sender).flatten();
            return value.ok_or(if self.closed { ReceiveError::Closed } else { ReceiveError::Empty });
        }
        // SAFETY: `first` holds a value, which is given up here.
        let value = unsafe { self.slots[self.first].assume_init_read() };
        self.first = (self.first + 1) % N;
        self.len -= 1;
        if let Some(next) = self.senders.serve_front(from_sender).flatten() {
            self.put(next);
        }
        Ok(value)
    }
}

impl<T, const N: usize, P: Platform> Drop for State<T, N, P> {
    fn drop(&mut self) {
        for n in 0..self.len {
            // SAFETY: these slots hold values, and nobody reads them any more.
            unsafe { self.slots[(self.first + n) % N].assume_init_drop() };
        }
    }
}

impl<T, const N: usize, P: Platform> Channel<T, N, P> {
    const_fn! {
        /// An open channel without values.
        ///
        /// ```
        /// let channel: sync::Channel<u32, 2> = sync::Channel::new();
        /// assert!(channel.is_empty());
        /// channel.try_send(1).unwrap(); // open
        /// ```
        #[track_caller]
        pub fn new() -> Channel<T, N, P> {
            Channel {
                room: Map::named("channel's room", 0, WaitType::Sleep, Level::Task),
                values: Map::named("channel's values", 1, WaitType::Sleep, Level::Task),
                state: SpinLock::new(State {
                    slots: [const { MaybeUninit::uninit() }; N],
                    first: 0,
                    len: 0,
                    closed: false,
                    senders: Waiters::new(),
                    receivers: Waiters::new(),
                }),
            }
        }
    }

    /// Sends `value`, waiting until there is room.
    ///
    /// Contexts: task, with nothing held that forbids sleeping.
    ///
    /// # Errors
    /// [`SendError::Closed`] if the channel is or becomes closed.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// use sync::{Channel, SendError};
    /// let channel: Channel<u32, 2> = Channel::new();
    /// assert_eq!(channel.send(7, &mut cx), Ok(()));
    /// channel.close();
    /// assert_eq!(channel.send(8, &mut cx), Err(SendError::Closed(8)));
    /// ```
    #[track_caller]
    pub fn send(&self, value: T, cx: &mut TaskCx<P>) -> Result<(), SendError<T>> {
        self.send_with(value, Limits::NONE, cx)
    }

    /// Sends `value`, waiting until there is room or a limit is reached. Contexts: as [`send`](Channel::send).
    ///
    /// # Errors
    /// [`SendError::Closed`], or [`SendError::Wait`] if a limit was reached first.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// use sync::{Channel, SendError, wait::{Limits, WaitError}};
    /// let channel: Channel<u32, 0> = Channel::new(); // nobody receives
    /// let sent = channel.send_with(7, Limits::NONE.until(0), &mut cx);
    /// assert_eq!(sent, Err(SendError::Wait(WaitError::TimedOut, 7)));
    /// ```
    #[track_caller]
    pub fn send_with(&self, value: T, limits: Limits, cx: &mut TaskCx<P>) -> Result<(), SendError<T>> {
        cx.might_sleep();
        let at = Location::caller();
        self.room.wait_for::<P>(at);
        self.values.bring_about::<P>(at);
        let mut state = self.state.lock();
        let mut slot = match state.offer(value) {
            Err(SendError::Full(value)) => Some(value),
            result => return result,
        };
        let request = Request { kind: 0, slot: (&raw mut slot).cast() };
        let (state, result) = sleep(&self.state, state, |state| &mut state.senders, request, limits, cx);
        drop(state);
        // Nobody reaches the slot any more. Empty: a receiver has the value.
        match (slot, result) {
            (None, _) => Ok(()),
            (Some(value), Ok(())) => Err(SendError::Closed(value)),
            (Some(value), Err(error)) => Err(SendError::Wait(error, value)),
        }
    }

    /// Sends `value` if there is room. Contexts: any but NMI.
    ///
    /// # Errors
    /// [`SendError::Closed`] and [`SendError::Full`].
    ///
    /// ```
    /// use sync::{Channel, SendError};
    /// let channel: Channel<u32, 1> = Channel::new();
    /// assert_eq!(channel.try_send(1), Ok(()));
    /// assert_eq!(channel.try_send(2), Err(SendError::Full(2)));
    /// channel.close();
    /// assert_eq!(channel.try_send(3), Err(SendError::Closed(3)));
    /// ```
    #[track_caller]
    pub fn try_send(&self, value: T) -> Result<(), SendError<T>> {
        self.values.bring_about::<P>(Location::caller());
        self.state.lock().offer(value)
    }

    /// Receives the oldest value, waiting until there is one.
    ///
    /// Contexts: task, with nothing held that forbids sleeping.
    ///
    /// # Errors
    /// [`ReceiveError::Closed`] if the channel is or becomes closed and nothing is left in it.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// use sync::{Channel, ReceiveError};
    /// let channel: Channel<u32, 2> = Channel::new();
    /// channel.try_send(1).unwrap();
    /// channel.try_send(2).unwrap();
    /// channel.close();
    /// assert_eq!((channel.receive(&mut cx), channel.receive(&mut cx)), (Ok(1), Ok(2)));
    /// assert_eq!(channel.receive(&mut cx), Err(ReceiveError::Closed));
    /// ```
    #[track_caller]
    pub fn receive(&self, cx: &mut TaskCx<P>) -> Result<T, ReceiveError> {
        self.receive_with(Limits::NONE, cx)
    }

    /// Receives the oldest value, waiting until there is one or a limit is reached. Contexts: as
    /// [`receive`](Channel::receive).
    ///
    /// # Errors
    /// [`ReceiveError::Closed`], or [`ReceiveError::Wait`] if a limit was reached first.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// use sync::{Channel, ReceiveError, wait::{Limits, WaitError}};
    /// let channel: Channel<u32, 2> = Channel::new(); // nobody sends
    /// let received = channel.receive_with(Limits::NONE.until(0), &mut cx);
    /// assert_eq!(received, Err(ReceiveError::Wait(WaitError::TimedOut)));
    /// ```
    #[track_caller]
    pub fn receive_with(&self, limits: Limits, cx: &mut TaskCx<P>) -> Result<T, ReceiveError> {
        cx.might_sleep();
        let at = Location::caller();
        self.values.wait_for::<P>(at);
        self.room.bring_about::<P>(at);
        let mut state = self.state.lock();
        match state.take() {
            Err(ReceiveError::Empty) => (),
            result => return result,
        }
        let mut slot = None::<T>;
        let request = Request { kind: 0, slot: (&raw mut slot).cast() };
        let (state, result) = sleep(&self.state, state, |state| &mut state.receivers, request, limits, cx);
        drop(state);
        match (slot, result) {
            (Some(value), _) => Ok(value),
            (None, Ok(())) => Err(ReceiveError::Closed),
            (None, Err(error)) => Err(ReceiveError::Wait(error)),
        }
    }

    /// Receives the oldest value if there is one. Contexts: any but NMI.
    ///
    /// # Errors
    /// [`ReceiveError::Closed`] and [`ReceiveError::Empty`].
    ///
    /// ```
    /// use sync::{Channel, ReceiveError};
    /// let channel: Channel<u32, 2> = Channel::new();
    /// channel.try_send(1).unwrap();
    /// channel.try_send(2).unwrap();
    /// assert_eq!((channel.try_receive(), channel.try_receive()), (Ok(1), Ok(2)));
    /// assert_eq!(channel.try_receive(), Err(ReceiveError::Empty));
    /// ```
    #[track_caller]
    pub fn try_receive(&self) -> Result<T, ReceiveError> {
        self.room.bring_about::<P>(Location::caller());
        self.state.lock().take()
    }

    /// Closes the channel: senders, waiting ones included, get their values back; receivers get what is left, and then
    /// an error. Contexts: any but NMI.
    ///
    /// ```
    /// use sync::{Channel, ReceiveError, SendError};
    /// let channel: Channel<u32, 2> = Channel::new();
    /// channel.try_send(1).unwrap();
    /// channel.close();
    /// assert_eq!(channel.try_send(2), Err(SendError::Closed(2)));
    /// assert_eq!(channel.try_receive(), Ok(1), "it was sent before");
    /// assert_eq!(channel.try_receive(), Err(ReceiveError::Closed));
    /// ```
    #[track_caller]
    pub fn close(&self) {
        let at = Location::caller();
        self.room.bring_about::<P>(at);
        self.values.bring_about::<P>(at);
        let mut state = self.state.lock();
        state.closed = true;
        state.senders.signal_where(|_| true);
        state.receivers.signal_where(|_| true);
    }

    /// How many values are in it; out of date at once. Contexts: any but NMI.
    ///
    /// ```
    /// let channel: sync::Channel<u32, 2> = sync::Channel::new();
    /// channel.try_send(1).unwrap();
    /// assert_eq!(channel.len(), 1);
    /// ```
    #[track_caller]
    pub fn len(&self) -> usize {
        self.state.lock().len
    }

    /// Whether there is none; out of date at once. Contexts: any but NMI.
    ///
    /// ```
    /// let channel: sync::Channel<u32, 2> = sync::Channel::new();
    /// assert!(channel.is_empty());
    /// channel.try_send(1).unwrap();
    /// assert!(!channel.is_empty());
    /// ```
    #[track_caller]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T, const N: usize, P: Platform> Default for Channel<T, N, P> {
    #[track_caller]
    fn default() -> Channel<T, N, P> {
        Channel::new()
    }
}

impl<T, const N: usize, P: Platform> fmt::Debug for Channel<T, N, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("len", &self.len()).field("capacity", &N).finish()
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Closed(_) => f.write_str("the channel is closed"),
            SendError::Full(_) => f.write_str("the channel is full; send() waits for room"),
            SendError::Wait(error, _) => error.fmt(f),
        }
    }
}

impl<T: fmt::Debug> core::error::Error for SendError<T> {}

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReceiveError::Closed => f.write_str("the channel is closed and empty"),
            ReceiveError::Empty => f.write_str("the channel is empty; receive() waits for a value"),
            ReceiveError::Wait(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ReceiveError {}
