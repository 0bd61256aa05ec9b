//! The checker against every small case.

mod orders;
mod rules;
mod texts;
