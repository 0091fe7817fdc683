//! A scripted provider on raw TCP.
