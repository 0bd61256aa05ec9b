//! Single cases, and every edge of every level.
