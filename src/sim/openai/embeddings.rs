//! Embeddings: numbers that depend on the text alone, as lists or, as the Python SDK asks, base64.

use super::super::base64;
use super::super::chance::Chance;
use super::super::fault::Fault;
use super::super::json::push;
use super::super::reply::Reply;
use super::{Scene, tokens_in};

/// The usual size of an embedding.
const USUAL_DIMENSIONS: u32 = 1536;

/// The largest one.
const MOST_DIMENSIONS: u32 = 4096;

pub(super) fn answer(scene: &Scene<'_>) -> Reply {
    let ask = scene.ask;
    let dimensions = ask.dimensions.unwrap_or(USUAL_DIMENSIONS).clamp(1, MOST_DIMENSIONS);
    let mut inputs = ask.inputs();
    if scene.fault == Some(Fault::Empty) {
        inputs.clear();
    }
    let mut out = String::with_capacity(256 + inputs.len() * dimensions as usize * 12);
    out.push_str(r#"{"object":"list","data":["#);
    for (index, input) in inputs.iter().enumerate() {
        out.push_str(if index > 0 { "," } else { "" });
        push(&mut out, format_args!(r#"{{"object":"embedding","index":{index},"embedding":"#));
        let numbers = vector(input, dimensions);
        if ask.encoding == Some("base64") {
            out.push('"');
            base64::push(&mut out, numbers.iter().flat_map(|number| number.to_le_bytes()));
            out.push('"');
        } else {
            for (place, number) in numbers.iter().enumerate() {
                push(&mut out, format_args!("{}{number}", if place > 0 { "," } else { "[" }));
            }
            out.push(']');
        }
        out.push('}');
    }
    let (model, tokens) = (&ask.model, tokens_in(ask.input));
    push(&mut out, format_args!(r#"],"model":"{model}","usage":{{"prompt_tokens":{tokens},"#));
    push(&mut out, format_args!(r#""total_tokens":{tokens}}}}}"#));
    scene.json(out)
}

/// A vector of length one that is the same for the same text (its FNV-1a hash starts the dice).
fn vector(text: &str, dimensions: u32) -> Vec<f32> {
    let seed = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let dice = Chance::new(seed);
    let raw: Vec<f64> = (0..dimensions).map(|_| dice.unit() - 0.5).collect();
    let length = raw.iter().map(|number| number * number).sum::<f64>().sqrt();
    #[expect(clippy::cast_possible_truncation, reason = "the wire carries 32 bits")]
    raw.iter().map(|number| (number / length) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_has_the_same_vector_of_length_one() {
        let one = vector("text", 64);
        assert_eq!(one, vector("text", 64));
        assert_ne!(one, vector("other", 64));
        let length: f32 = one.iter().map(|number| number * number).sum();
        assert!((length - 1.0).abs() < 1e-3, "{length}");
    }
}
