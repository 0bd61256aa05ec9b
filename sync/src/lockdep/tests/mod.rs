//! The checker against every small case.

mod model;
mod orders;
mod properties;
mod rules;
mod texts;
mod times;
