//! Golden values answered in Rust, with the standard library alone: a template for a backend.
//!
//! Reads a bundle (manifest.json, arrays.safetensors), answers the operations that `answer` knows,
//! and writes THEIRS/arrays.safetensors for `refimpl golden check`:
//!
//!     refimpl golden write --container safetensors golden
//!     rustc --edition 2021 -O -o answers golden.rs
//!     for b in $(ls golden); do mkdir -p theirs/$b; ./answers golden/$b theirs/$b; done
//!     refimpl golden check theirs --against golden --only-answered
//!
//! To test your own library, call it where `answer` computes; what is around it stays.
//! `refimpl golden describe NAME` tells what an operation must do.  A case for which `answer`
//! returns None is left out.  Here all answers are float32; see golden.c for others.

use std::collections::BTreeMap;
use std::{env, fs};

#[derive(Clone)]
struct Tensor {
    shape: Vec<usize>,
    values: Vec<f32>,
}

type Arrays = BTreeMap<String, Tensor>;

/// Return the answers to one case by name, or None if it is not for us.
fn answer(operation: &str, given: &Arrays, settings: &Json) -> Option<Arrays> {
    let array = |name: &str| given.get(name).cloned();
    let mut out = Arrays::new();
    let mut say = |name: &str, shape: &[usize], values: Vec<f32>| {
        let shape = shape.to_vec();
        out.insert(name.to_string(), Tensor { shape, values });
    };
    match operation {
        "relu" => {
            let (x, dy) = (array("x")?, array("dy")?);
            say("y", &x.shape, x.values.iter().map(|v| v.max(0.0)).collect());
            let passed = x.values.iter().zip(&dy.values);
            say("dx", &x.shape, passed.map(|(x, dy)| if *x > 0.0 { *dy } else { 0.0 }).collect());
        }
        "affine" => {
            let (x, w, b, dy) = (array("x")?, array("w")?, array("b")?, array("dy")?);
            let (rows, ins, outs) = (x.shape[0], w.shape[0], w.shape[1]);
            let (mut y, mut db) = (vec![0.0; rows * outs], vec![0.0; outs]);
            let (mut dw, mut dx) = (vec![0.0; ins * outs], vec![0.0; rows * ins]);
            for r in 0..rows {
                for o in 0..outs {
                    let slope = dy.values[r * outs + o];
                    y[r * outs + o] = b.values[o];
                    db[o] += slope;
                    for i in 0..ins {
                        y[r * outs + o] += x.values[r * ins + i] * w.values[i * outs + o];
                        dw[i * outs + o] += x.values[r * ins + i] * slope;
                        dx[r * ins + i] += slope * w.values[i * outs + o];
                    }
                }
            }
            say("y", &[rows, outs], y);
            say("dw", &[ins, outs], dw);
            say("db", &[outs], db);
            say("dx", &[rows, ins], dx);
        }
        "bmuf" => {
            let (mut model, found) = (array("initial")?.values, array("found")?);
            let (blocks, models, n) = (found.shape[0], found.shape[1], found.shape[2]);
            let eta = settings.number("eta").unwrap_or(1.0 - 1.0 / models as f64) as f32;
            let (zeta, nesterov) = (settings.number("zeta")? as f32, settings.is("nesterov"));
            let (mut start, mut update) = (model.clone(), vec![0.0; n]);
            let mut seen = [Vec::new(), Vec::new(), Vec::new()];
            for block in 0..blocks {
                for i in 0..n {
                    let mut sum = 0.0;
                    for m in 0..models {
                        sum += start[i] + found.values[(block * models + m) * n + i];
                    }
                    update[i] = eta * update[i] + zeta * (sum / models as f32 - start[i]);
                    model[i] += update[i];
                    start[i] = model[i] + if nesterov { eta * update[i] } else { 0.0 };
                }
                for (rows, now) in seen.iter_mut().zip([&model, &update, &start]) {
                    rows.extend(now);
                }
            }
            for (name, rows) in ["model", "update", "start"].iter().zip(seen) {
                say(name, &[blocks, n], rows);
            }
        }
        _ => return None,
    }
    Some(out)
}

// ------------------------------------------------------------------------------------------ JSON

enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    fn get(&self, name: &str) -> &Json {
        match self {
            Json::Object(all) => all.iter().find(|(n, _)| n == name).map_or(&Json::Null, |m| &m.1),
            _ => &Json::Null,
        }
    }
    fn list(&self) -> &[Json] {
        if let Json::List(all) = self { all } else { &[] }
    }
    fn text(&self) -> &str {
        if let Json::Text(text) = self { text } else { "" }
    }
    fn number(&self, name: &str) -> Option<f64> {
        if let Json::Number(x) = self.get(name) { Some(*x) } else { None }
    }
    fn is(&self, name: &str) -> bool {
        matches!(self.get(name), Json::Bool(true))
    }
}

/// Parse a value at the front of `text`, which goes on behind it.
fn parsed(text: &mut &[u8]) -> Json {
    let skip = |text: &mut &[u8]| {
        while matches!(text.first(), Some(b' ' | b'\n' | b'\r' | b'\t' | b',' | b':')) {
            *text = &text[1..];
        }
    };
    skip(text);
    match text[0] {
        b'{' | b'[' => {
            let (open, mut names, mut values) = (text[0], Vec::new(), Vec::new());
            *text = &text[1..];
            loop {
                skip(text);
                if matches!(text[0], b'}' | b']') {
                    break;
                }
                if open == b'{' {
                    names.push(parsed(text).text().to_string());
                }
                values.push(parsed(text));
            }
            *text = &text[1..];
            if open == b'[' { Json::List(values) } else { Json::Object(names.into_iter().zip(values).collect()) }
        }
        b'"' => {
            let mut said = Vec::new();
            *text = &text[1..];
            while text[0] != b'"' {
                if text[0] == b'\\' {
                    *text = &text[1..]; // no name or setting has an escape that matters here
                }
                said.push(text[0]);
                *text = &text[1..];
            }
            *text = &text[1..];
            Json::Text(String::from_utf8_lossy(&said).into_owned())
        }
        _ => {
            let end = text.iter().position(|c| b",:]} \n\r\t".contains(c)).unwrap_or(text.len());
            let word = String::from_utf8_lossy(&text[..end]).into_owned();
            *text = &text[end..];
            match word.as_str() {
                "null" => Json::Null,
                "true" | "false" => Json::Bool(word == "true"),
                _ => Json::Number(word.parse().expect("a number in JSON")),
            }
        }
    }
}

// ----------------------------------------------------------------------------------- safetensors

/// Return the float32 arrays of a file by name.
fn load(path: &str) -> Arrays {
    let content = fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let data = 8 + u64::from_le_bytes(content[..8].try_into().unwrap()) as usize;
    let Json::Object(header) = parsed(&mut &content[8..data]) else { panic!("{path}: no header") };
    let mut arrays = Arrays::new();
    for (name, told) in header {
        if told.get("dtype").text() != "F32" {
            continue;
        }
        let whole = |name: &str| -> Vec<usize> {
            let number = |one: &Json| if let Json::Number(x) = one { *x as usize } else { 0 };
            told.get(name).list().iter().map(number).collect()
        };
        let (shape, place) = (whole("shape"), whole("data_offsets"));
        let bytes = &content[data + place[0]..data + place[1]];
        let values = bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap()));
        arrays.insert(name, Tensor { shape, values: values.collect() });
    }
    arrays
}

fn save(path: &str, arrays: &Arrays) {
    let (mut header, mut data) = (Vec::new(), Vec::new());
    for (name, array) in arrays {
        let begin = data.len();
        data.extend(array.values.iter().flat_map(|value| value.to_le_bytes()));
        let (shape, end) = (&array.shape, data.len());
        header.push(format!("{name:?}:{{\"dtype\":\"F32\",\"shape\":{shape:?},\"data_offsets\":[{begin},{end}]}}"));
    }
    let mut text = format!("{{{}}}", header.join(","));
    while text.len() % 8 > 0 {
        text.push(' ');
    }
    let content = [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &data].concat();
    fs::write(path, content).unwrap_or_else(|error| panic!("{path}: {error}"));
}

fn main() {
    let argument: Vec<String> = env::args().collect();
    let [_, golden, theirs] = &argument[..] else { panic!("give GOLDEN/BUNDLE and THEIRS/BUNDLE") };
    let manifest = fs::read(format!("{golden}/manifest.json")).expect("a manifest");
    let (all, mut answers) = (load(&format!("{golden}/arrays.safetensors")), Arrays::new());
    for case in parsed(&mut &manifest[..]).get("cases").list() {
        let name = case.get("name").text();
        let mut given = Arrays::new();
        for array in case.get("arrays").list() {
            let key = array.get("name").text();
            if let (Some(tensor), "input") = (all.get(&format!("{name}/{key}")), array.get("role").text()) {
                given.insert(key.to_string(), tensor.clone());
            }
        }
        if let Some(out) = answer(case.get("operation").text(), &given, case.get("settings")) {
            answers.extend(out.into_iter().map(|(key, tensor)| (format!("{name}/{key}"), tensor)));
        }
    }
    if !answers.is_empty() {
        save(&format!("{theirs}/arrays.safetensors"), &answers);
    }
}
