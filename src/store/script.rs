//! The scripts as Redis gets them: one file of `lua/` each, with the shared pieces that it asks for
//! in their places, known to the server by their SHA-1.
//!
//! A tree of one level is enough: a piece asks for no other piece.

use std::sync::LazyLock;

/// Which script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// `lua/admit.lua`
    Admit,
    /// `lua/top_up.lua`
    TopUp,
    /// `lua/settle.lua`
    Settle,
    /// `lua/renew.lua`
    Renew,
    /// `lua/lapsed.lua`
    Lapsed,
    /// `lua/standing.lua`
    Standing,
    /// `lua/tick.lua`
    Tick,
    /// `lua/forget.lua`
    Forget,
}

impl Name {
    /// All scripts, in the order of `Scripts`.
    pub const ALL: [Self; 8] = [
        Self::Admit,
        Self::TopUp,
        Self::Settle,
        Self::Renew,
        Self::Lapsed,
        Self::Standing,
        Self::Tick,
        Self::Forget,
    ];

    /// The file as it is written.
    #[must_use]
    pub const fn source(self) -> &'static str {
        match self {
            Self::Admit => include_str!("../../lua/admit.lua"),
            Self::TopUp => include_str!("../../lua/top_up.lua"),
            Self::Settle => include_str!("../../lua/settle.lua"),
            Self::Renew => include_str!("../../lua/renew.lua"),
            Self::Lapsed => include_str!("../../lua/lapsed.lua"),
            Self::Standing => include_str!("../../lua/standing.lua"),
            Self::Tick => include_str!("../../lua/tick.lua"),
            Self::Forget => include_str!("../../lua/forget.lua"),
        }
    }
}

/// The pieces that scripts share.
const PIECES: [(&str, &str); 10] = [
    ("charge", include_str!("../../lua/include/charge.lua")),
    ("clock", include_str!("../../lua/include/clock.lua")),
    ("correct", include_str!("../../lua/include/correct.lua")),
    ("held", include_str!("../../lua/include/held.lua")),
    ("scope", include_str!("../../lua/include/scope.lua")),
    ("states", include_str!("../../lua/include/states.lua")),
    ("status", include_str!("../../lua/include/status.lua")),
    ("take", include_str!("../../lua/include/take.lua")),
    ("usage", include_str!("../../lua/include/usage.lua")),
    ("window", include_str!("../../lua/include/window.lua")),
];

/// Instead of the clock, for tests alone: the time is one more argument, the last one.
const TEST_CLOCK: &str = include_str!("../../lua/include/test_clock.lua");

/// How a piece is asked for, alone on its line.
const INCLUDE: &str = "--- @include \"";

/// One script, ready to run.
#[derive(Debug)]
pub(crate) struct Script {
    /// All of its text.
    pub(crate) text: String,
    /// By which the server knows it.
    pub(crate) sha: String,
}

/// All scripts.
#[derive(Debug)]
pub(crate) struct Scripts([Script; Name::ALL.len()]);

impl Scripts {
    /// Those that run on Redis's own clock.
    pub(crate) fn real() -> &'static Self {
        static REAL: LazyLock<Scripts> = LazyLock::new(|| Scripts::with_clock(None));
        &REAL
    }

    /// Those of tests, which are told the time.
    pub(crate) fn with_test_clock() -> &'static Self {
        static TEST: LazyLock<Scripts> = LazyLock::new(|| Scripts::with_clock(Some(TEST_CLOCK)));
        &TEST
    }

    fn with_clock(clock: Option<&str>) -> Self {
        Self(Name::ALL.map(|name| {
            let text = flattened(name.source(), clock);
            let sha = redis::Script::new(&text).get_hash().to_owned();
            Script { text, sha }
        }))
    }

    /// One of them.
    pub(crate) fn get(&self, name: Name) -> &Script {
        self.0.get(name as usize).expect("the names are numbered in the order of the list")
    }
}

/// The text of a script with the pieces that it asks for; `clock` stands in for that piece.
fn flattened(source: &str, clock: Option<&str>) -> String {
    let mut text = String::with_capacity(2 * source.len());
    for line in source.lines() {
        match line.strip_prefix(INCLUDE).and_then(|rest| rest.strip_suffix('"')) {
            Some(asked) => {
                let piece = PIECES.iter().find(|(name, _)| *name == asked);
                let (name, piece) = piece.expect("a test holds that every piece asked for exists");
                text.push_str(clock.filter(|_| *name == "clock").unwrap_or(piece));
            }
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
