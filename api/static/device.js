// A worker that finds faces in the browser alone: ONNX Runtime and the model come from this page's own host, and
// pictures go nowhere. Takes { id, picture (a Blob or ImageBitmap), conf }, answers { id, answer } or { id, problem }.

import { cutOut, decode, letterbox, probabilitiesOf, scoresOf } from "./network.js";

const FILES = new URL("../device/", import.meta.url);

async function fetched(name) {
  const response = await fetch(new URL(name, FILES));
  if (!response.ok) throw new Error(`${name} can’t be loaded (${response.status})`);
  return response;
}

async function load() {
  const spec = await (await fetched("model.json")).json();
  const bytes = await (await fetched("model.onnx")).arrayBuffer();
  if (crypto.subtle) { // on https and this computer only
    const digest = [...new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))];
    const hex = digest.map((byte) => byte.toString(16).padStart(2, "0")).join("");
    if (hex !== spec.files.onnx.sha256) throw new Error("the model’s file is damaged");
  }
  const ort = await import(new URL("ort.wasm.bundle.min.mjs", FILES));
  ort.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", FILES).href };
  ort.env.wasm.numThreads = 1; // more need headers that keep other pages from embedding this one
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  return { ort, spec, session };
}

let loading;
function loaded() {
  loading ??= load().catch((error) => { loading = undefined; throw error; });
  return loading;
}

// Returns the upright picture's pixels, on white, and whether it is a JPEG.
async function pixelsOf(picture) {
  let bitmap = picture;
  let isJpeg = false;
  if (picture instanceof Blob) {
    const head = new Uint8Array(await picture.slice(0, 3).arrayBuffer());
    isJpeg = head[0] === 0xff && head[1] === 0xd8 && head[2] === 0xff;
    try {
      bitmap = await createImageBitmap(picture, { imageOrientation: "from-image", colorSpaceConversion: "none" });
    } catch {
      throw new Error("this browser can’t read the picture; try a JPEG, PNG or WebP");
    }
  }
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return { picture: context.getImageData(0, 0, width, height), isJpeg };
}

const rounded = (value, digits) => Number(value.toFixed(digits));

async function run({ ort, session }, tensor, shape) {
  const feeds = { [session.inputNames[0]]: new ort.Tensor("float32", tensor, shape) };
  return (await session.run(feeds))[session.outputNames[0]];
}

// Names faces from their close-ups, if the model uses them; a face that is not found there keeps its probabilities.
async function name(model, faces, reduced) {
  const { close_up: given, classes, input, calibration } = model.spec;
  for (const face of given ? faces.slice(0, given.faces) : []) {
    const { tensors, shape, box } = cutOut(reduced, face.xyxy, given, input.pad);
    const seen = [];
    for (const tensor of tensors) {
      const output = await run(model, tensor, shape);
      const scores = scoresOf(output.data, output.dims[2], classes.length, box);
      if (scores) seen.push(scores);
    }
    if (!seen.length) continue;
    const mean = classes.map((_, index) => seen.reduce((sum, scores) => sum + scores[index], 0) / seen.length);
    face.probabilities = probabilitiesOf(mean, calibration);
  }
}

async function look({ picture, conf }) {
  const model = await loaded();
  const { spec } = model;
  const times = [performance.now()];
  const { picture: pixels, isJpeg } = await pixelsOf(picture);
  times.push(performance.now());
  const { tensor, shape, box, reduced } = letterbox(pixels, spec.input, isJpeg);
  times.push(performance.now());
  const output = await run(model, tensor, shape);
  const inferredAt = performance.now();
  const faces = decode(output.data, output.dims[2], box, {
    classes: spec.classes.length,
    thresholds: spec.thresholds,
    calibration: spec.calibration,
    conf: conf || spec.thresholds.conf,
  });
  times.push(performance.now());
  await name(model, faces, reduced);
  times.push(performance.now());
  const [decoding, preprocess, , again] = times.slice(1).map((time, index) => time - times[index]);
  const inference = inferredAt - times[2] + again; // close-ups included
  const postprocess = times[3] - inferredAt;
  const digest = spec.files.onnx.sha256;
  return {
    image: { width: pixels.width, height: pixels.height },
    model: { name: spec.name, version: spec.version, digest },
    detections: faces.map(({ xyxy, confidence, probabilities }) => {
      const [x1, y1, x2, y2] = xyxy.map((value) => rounded(value, 2));
      return {
        box: { x1, y1, x2, y2 },
        emotion: spec.classes[probabilities.indexOf(Math.max(...probabilities))],
        confidence: rounded(confidence, 4),
        probabilities: Object.fromEntries(spec.classes.map((name, index) => [name, rounded(probabilities[index], 6)])),
      };
    }),
    timing_ms: { decode: decoding, preprocess, inference, postprocess, total: times.at(-1) - times[0] },
  };
}

addEventListener("message", async ({ data }) => {
  try {
    postMessage({ id: data.id, answer: await look(data) });
  } catch (error) {
    postMessage({ id: data.id, problem: error.message });
  }
});
