//! A conversation on a terminal, or through pipes: what the events of a session say, and who answers questions.

mod answer;
mod happening;
mod keyboard;
mod paint;
mod screen;
mod spinner;
mod tool;
mod turn;

pub(crate) use happening::{Happening, Question};
pub(crate) use keyboard::{Keyboard, Typed};
pub(crate) use screen::Screen;
pub(crate) use tool::describe;
pub(crate) use turn::{End, Turn};
