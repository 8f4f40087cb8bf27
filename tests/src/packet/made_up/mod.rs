//! Frames that nobody sends on purpose: stories as libFuzzer makes them up, told to the programs as the
//! kernel verified them, by the same judge that the fuzzer `frame` has for the pure half.
//!
//! Pure, and taken into the fuzzer by their path: [`setting`], [`story`], [`wire`], [`judge`].

pub mod command;
pub mod judge;
mod loaded;
mod mutation;
pub mod run;
pub mod setting;
pub mod story;
pub mod wire;
