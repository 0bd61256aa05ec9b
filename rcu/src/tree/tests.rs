//! The shapes of trees; what the tree says, one event at a time; and real threads.

mod examples;
mod geometry;
mod threads;
