//! The order of a completion's events, and what each fault makes of it.

use std::iter;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::super::body::Beat;
use super::super::chance::Chance;
use super::super::config::Config;
use super::super::fault::Fault;
use super::super::reply::broken_off;
use super::chat::Voice;
use super::error;

/// The delays of one stream.
pub(super) struct Pace {
    config: Config,
    chance: Chance,
}

/// How a stream ends where no fault ends it.
pub(super) struct Ending {
    /// The finish reason of every choice.
    pub(super) reason: &'static str,
    /// The usage event, where one is asked for.
    pub(super) usage: Option<Bytes>,
}

impl Pace {
    /// The delays that these settings ask for.
    pub(super) const fn new(config: &Config, chance: Chance) -> Self {
        Self { config: *config, chance }
    }

    /// The silence before this token.
    pub(super) fn before(&self, token: u32) -> Duration {
        let Config { first_token, token_interval, jitter, .. } = self.config;
        self.chance.around(if token == 0 { first_token } else { token_interval }, jitter)
    }
}

/// The whole stream: each choice opens, pieces follow in turns, each choice finishes, then usage
/// and `[DONE]`.
pub(super) fn script(
    voice: Rc<Voice>,
    pace: Pace,
    ending: &Ending,
    fault: Option<Fault>,
) -> impl Iterator<Item = Beat> + use<> {
    let pieces = voice.say.pieces();
    let stops = fault.filter(|fault| breaks(*fault));
    let until = if stops.is_some() { super::say::half(pieces, &pace.config) } else { pieces };
    let goes_on = matches!(fault, Some(Fault::Malformed)) || stops.is_none();

    let opener = Rc::clone(&voice);
    let opening = (0..voice.choices).filter_map(move |index| opener.opening(index)).map(Beat::Send);
    let pace = Rc::new(pace);
    let content = turns(&voice, &pace, 0..until);
    let interruption = stops.into_iter().flat_map(interrupted);
    let rest = goes_on.then(|| {
        let silence = if pieces == 0 { pace.before(0) } else { Duration::ZERO };
        let finishes = (0..voice.choices).map(|index| voice.finish(index, ending.reason));
        let done = (fault != Some(Fault::NoDone)).then(|| Bytes::from_static(b"data: [DONE]\n\n"));
        let last: Vec<_> = finishes.chain(ending.usage.clone()).chain(done).collect();
        let last = last.into_iter().map(Beat::Send);
        turns(&voice, &pace, until..pieces).chain(iter::once(Beat::Wait(silence))).chain(last)
    });
    opening.chain(content).chain(interruption).chain(rest.into_iter().flatten())
}

/// The faults that happen between two events of a stream.
pub(super) const fn breaks(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::Cut | Fault::Stall | Fault::CutClean | Fault::ErrorEvent | Fault::Malformed
    )
}

/// What a fault puts between two events of a stream. A clean cut puts nothing.
pub(super) fn interrupted(fault: Fault) -> Box<dyn Iterator<Item = Beat>> {
    let event = match fault {
        Fault::Cut | Fault::Stall => return Box::new(broken_off(fault)),
        Fault::ErrorEvent => Some(Bytes::from(format!("data: {}\n\n", error::server_object()))),
        Fault::Malformed => {
            Some(Bytes::from_static(b"data: {\"id\":\"chatcmpl-\",\"choices\":[{\"del\n\n"))
        }
        _ => None,
    };
    Box::new(event.into_iter().map(Beat::Send))
}

/// These pieces of every choice, each after its silence.
fn turns(
    voice: &Rc<Voice>,
    pace: &Rc<Pace>,
    pieces: Range<u32>,
) -> impl Iterator<Item = Beat> + use<> {
    let (voice, pace) = (Rc::clone(voice), Rc::clone(pace));
    pieces.flat_map(move |piece| {
        let voice = Rc::clone(&voice);
        let choices = 0..voice.choices;
        let events = choices.map(move |index| Beat::Send(voice.piece(index, piece)));
        iter::once(Beat::Wait(pace.before(piece))).chain(events)
    })
}
