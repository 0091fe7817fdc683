//! Estimates: what is assumed, what is learnt, what stays within bounds.

use proptest::prelude::*;

use super::*;

const ASK: Ask<'_> =
    Ask { model: "m", prompt_bytes: 1000, max_tokens: None, choices: 1, text: true };

fn used(input_tokens: u64, output_tokens: u64) -> Usage {
    Usage { input_tokens, output_tokens, ..Usage::default() }
}

#[test]
fn of_an_unknown_model_a_quarter_of_the_bytes_and_a_thousand_tokens_are_assumed() {
    let estimator = Estimator::new(10);
    assert_eq!(estimator.estimate(&ASK), Tokens { input: 250, output: 1024 });
    let one = Ask { prompt_bytes: 1, ..ASK };
    assert_eq!(estimator.estimate(&one).input, 1);
    assert_eq!(estimator.estimate(&Ask { prompt_bytes: 0, ..ASK }).input, 0);
}

#[test]
fn the_clients_own_bound_counts_for_each_choice() {
    let estimator = Estimator::new(10);
    let ask = Ask { max_tokens: Some(100), choices: 3, ..ASK };
    assert_eq!(estimator.estimate(&ask).output, 300);
    assert_eq!(estimator.estimate(&Ask { choices: 4, ..ASK }).output, 4096);
    assert_eq!(estimator.estimate(&Ask { max_tokens: Some(0), ..ASK }).output, 0);
    let absurd = Ask { max_tokens: Some(u64::MAX), choices: u32::MAX, ..ASK };
    assert_eq!(estimator.estimate(&absurd).output, 1 << 30);
}

#[test]
fn an_endpoint_without_text_has_no_output() {
    let mut estimator = Estimator::new(10);
    let ask = Ask { text: false, max_tokens: Some(5), ..ASK };
    assert_eq!(estimator.estimate(&ask), Tokens { input: 250, output: 0 });
    (0..100).for_each(|_| estimator.observe(&Ask { text: false, ..ASK }, &used(250, 0)));
    assert_eq!(estimator.estimate(&ASK).output, 1024, "nothing was learnt of texts");
}

#[test]
fn a_models_own_tokens_for_each_byte_are_learnt() {
    let mut estimator = Estimator::new(10);
    (0..200).for_each(|_| estimator.observe(&ASK, &used(400, 10)));
    assert!((399..=401).contains(&estimator.estimate(&ASK).input));
    assert_eq!(estimator.estimate(&Ask { model: "other", ..ASK }).input, 250);
    // One odd figure moves it by a sixteenth.
    estimator.observe(&ASK, &used(1000, 10));
    assert!((430..=440).contains(&estimator.estimate(&ASK).input));
}

#[test]
fn nonsense_of_a_provider_stays_within_bounds() {
    let mut estimator = Estimator::new(10);
    for _ in 0..1000 {
        estimator.observe(&ASK, &used(u64::MAX, u64::MAX));
        estimator.observe(&Ask { prompt_bytes: 0, ..ASK }, &used(5, u64::MAX));
    }
    let Tokens { input, output } = estimator.estimate(&ASK);
    assert!((999..=1000).contains(&input) && output == 65_536, "{input} {output}");
    (0..1000).for_each(|_| estimator.observe(&ASK, &used(0, 0)));
    assert!(estimator.estimate(&ASK).input >= 999, "no prompt has no tokens");
    assert_eq!(estimator.estimate(&ASK).output, 16);
    (0..1000).for_each(|_| estimator.observe(&Ask { prompt_bytes: u64::MAX, ..ASK }, &used(1, 1)));
    assert_eq!(estimator.estimate(&ASK).input, 1);
}

#[test]
fn an_answers_length_is_learnt_where_the_client_does_not_bound_it() {
    let mut estimator = Estimator::new(10);
    let bounded = Ask { max_tokens: Some(20), ..ASK };
    (0..100).for_each(|_| estimator.observe(&bounded, &used(250, 20)));
    assert_eq!(estimator.estimate(&ASK).output, 1024);
    (0..100).for_each(|_| estimator.observe(&ASK, &used(250, 300)));
    assert!((300..=310).contains(&estimator.estimate(&ASK).output));
    let two = Ask { choices: 2, ..ASK };
    (0..100).for_each(|_| estimator.observe(&two, &used(250, 600)));
    assert!((300..=310).contains(&estimator.estimate(&ASK).output), "each choice counts");
}

#[test]
fn most_answers_are_shorter_than_their_estimate() {
    let mut estimator = Estimator::new(10);
    let (mut longer, mut sum) = (0, 0);
    // Evenly from 100 to 900, in an order that does not help.
    for n in 0..2000_u64 {
        let length = 100 + n * 7919 % 801;
        if n >= 100 {
            let estimate = estimator.estimate(&ASK).output;
            longer += u64::from(length > estimate);
            sum += estimate;
        }
        estimator.observe(&ASK, &used(250, length));
    }
    assert!(longer < 1900 / 10, "{longer} of 1900 were longer");
    assert!(sum / 1900 < 1200, "{} on average", sum / 1900);
}

#[test]
fn estimates_teach_nothing() {
    let mut estimator = Estimator::new(10);
    let usage = Usage { estimated: true, ..used(1000, 9) };
    (0..100).for_each(|_| estimator.observe(&ASK, &usage));
    assert_eq!(estimator.estimate(&ASK), Tokens { input: 250, output: 1024 });
}

#[test]
fn the_model_that_was_observed_longest_ago_is_forgotten() {
    let mut estimator = Estimator::new(2);
    let ask = |model| Ask { model, ..ASK };
    for model in ["a", "b", "a", "c"] {
        (0..100).for_each(|_| estimator.observe(&ask(model), &used(500, 50)));
    }
    assert_eq!(estimator.estimate(&ask("b")).input, 250);
    assert!(estimator.estimate(&ask("a")).input > 490);
    assert!(estimator.estimate(&ask("c")).input > 490);
    assert_eq!(estimator.models.len(), 2);
}

#[test]
fn a_top_up_grows_with_what_was_reserved() {
    let steps = [0, 100, 1024, 10_000, u64::MAX].map(top_up);
    assert_eq!(steps, [256, 256, 512, 5000, 8192]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_observed_estimates_and_memory_stay_bounded(
        seen in proptest::collection::vec(
            (0..8_u8, any::<u64>(), any::<u64>(), any::<u64>(), any::<Option<u64>>(), any::<u32>(),
             any::<bool>(), any::<bool>()),
            0..60,
        ),
        small in any::<bool>(),
    ) {
        let mut estimator = Estimator::new(3);
        for (model, bytes, input, output, max_tokens, choices, text, estimated) in seen {
            let cut = |number: u64| if small { number % 5000 } else { number };
            let model = model.to_string();
            let (prompt_bytes, max_tokens) = (cut(bytes), max_tokens.map(cut));
            let ask = Ask { model: &model, prompt_bytes, max_tokens, choices, text };
            let before = estimator.estimate(&ask);
            prop_assert!(before.input <= 1 << 30 && before.output <= 1 << 30);
            prop_assert!(before.input <= prompt_bytes && (before.input > 0 || prompt_bytes == 0));
            prop_assert!(text || before.output == 0);
            let usage = Usage { estimated, ..used(cut(input), cut(output)) };
            estimator.observe(&ask, &usage);
            prop_assert!(estimator.models.len() <= 3);
            let unbounded = Ask { choices: 1, max_tokens: None, text: true, ..ask };
            prop_assert!((16..=65_536).contains(&estimator.estimate(&unbounded).output));
        }
    }

    #[test]
    fn a_steady_model_is_learnt_within_a_few_per_cent(
        bytes in 100..100_000_u64,
        per_mille in 1..=1000_u64,
        length in 16..60_000_u64,
    ) {
        let mut estimator = Estimator::new(3);
        let ask = Ask { prompt_bytes: bytes, ..ASK };
        let tokens = (bytes * per_mille / 1000).max(1);
        (0..150).for_each(|_| estimator.observe(&ask, &used(tokens, length)));
        let found = estimator.estimate(&ask);
        prop_assert!(found.input.abs_diff(tokens) <= tokens / 20 + 2 + bytes / 4000, "{found:?} {tokens}");
        prop_assert!(found.output >= length && found.output <= length + length / 20 + 2, "{found:?}");
    }
}
