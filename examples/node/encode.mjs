// Runs the graph of a nearshore model bundle in Node: token ids in, one vector a text out.
//
//   npm install
//   nearshore --json model tokens all-MiniLM-L6-v2 "How do I parse a date?" | node encode.mjs FOLDER_OF_THE_BUNDLE
//
// Standard input: {"ids": [...]} as above, or {"texts": [[...], ...]}. Standard output: one JSON object,
// {"vectors": [...], "sequences": [...]}, with a text's vector and the vectors of its tokens.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import ort from "onnxruntime-node";

async function main(folder) {
  const manifest = JSON.parse(readFileSync(join(folder, "bundle.json"), "utf8"));
  if (manifest.dense) throw new Error("the bundle has dense layers behind its pooling, which this example does not do");
  const session = await ort.InferenceSession.create(join(folder, "model.onnx"));
  const request = JSON.parse(readFileSync(0, "utf8"));
  const texts = request.texts ?? [request.ids];
  const vectors = [];
  const sequences = [];
  for (const ids of texts) {
    const { sequence_output: output } = await session.run(feeds(manifest, ids));
    const tokens = rows(output);
    sequences.push(tokens);
    vectors.push(pool(tokens, manifest));
  }
  console.log(JSON.stringify({ vectors, sequences }));
}

// One text needs no padding: every token is real, and all are of its first segment.
function feeds(manifest, ids) {
  const values = {
    input_ids: ids,
    attention_mask: ids.map(() => 1),
    token_type_ids: ids.map(() => 0),
  };
  const tensor = (numbers) => new ort.Tensor("int64", BigInt64Array.from(numbers, BigInt), [1, numbers.length]);
  return Object.fromEntries(manifest.inputs.map((name) => [name, tensor(values[name])]));
}

// A tensor (1, tokens, width) as an array of arrays.
function rows({ data, dims: [, count, width] }) {
  return Array.from({ length: count }, (_, row) => Array.from(data.subarray(row * width, (row + 1) * width)));
}

// Every kind of pooling that a bundle may name.
const poolings = {
  cls: (tokens) => tokens[0],
  max: (tokens) => columns(tokens, (values) => Math.max(...values)),
  mean: (tokens) => columns(tokens, (values) => sum(values) / values.length),
  mean_sqrt_len: (tokens) => columns(tokens, (values) => sum(values) / Math.sqrt(values.length)),
  weighted_mean: (tokens) => {
    const weights = tokens.map((_, position) => position + 1);
    return columns(tokens, (values) => sum(values.map((value, position) => value * weights[position])) / sum(weights));
  },
  last_token: (tokens) => tokens.at(-1),
};

// "mean", or several side by side: "cls+max".
function pool(tokens, { pooling, normalize }) {
  const vector = pooling.split("+").flatMap((kind) => poolings[kind](tokens));
  if (!normalize) return vector;
  const length = Math.hypot(...vector);
  return vector.map((component) => component / length);
}

function columns(tokens, make) {
  return tokens[0].map((_, column) => make(tokens.map((row) => row[column])));
}

function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

if (process.argv.length !== 3) {
  console.error("usage: node encode.mjs FOLDER_OF_THE_BUNDLE < ids.json");
  process.exit(2);
}
await main(process.argv[2]);
