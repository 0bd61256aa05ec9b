//! The default lock word: its waiters as plain values, and on host threads.
