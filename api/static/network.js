// The network's input and output, by the rules of emotion_yolo.inference (letterbox.py, decoding.py,
// calibration.py, close_up.py).
// Pictures are RGBA bytes, as a canvas has them: { width, height, data }.

const MAX_CANDIDATES = 3000;
const LEAST_SCORE = 1e-7;
const MAX_UPSCALE = 2.5; // of a close-up
const SAME_FACE = 0.5; // least overlap of a box in a close-up with the face that it was made for
const JPEG_REDUCTIONS = [8, 4, 2, 1];

// Python's: halves go to the even neighbour.
function round(value) {
  const low = Math.floor(value);
  const rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? low + 1 : low;
}

// By what integer a picture is reduced so that its longer side keeps `fit` px. JPEG decoders know halves only.
export function reductionOf({ width, height }, fit, isJpeg) {
  const most = Math.max(Math.min(Math.floor(Math.max(width, height) / fit), Math.min(width, height)), 1);
  return isJpeg ? JPEG_REDUCTIONS.find((factor) => factor <= most) : most;
}

// What each target pixel is made of along one axis: from `first` on, as many sources as there are `weights`.
function areaTaps(from, to) {
  const scale = from / to;
  return Array.from({ length: to }, (_, target) => {
    const begin = target * scale;
    const end = Math.min((target + 1) * scale, from);
    const first = Math.floor(begin + 1e-6);
    const count = Math.ceil(end - 1e-6) - first;
    const weights = Float32Array.from({ length: count }, (_unused, index) => (
      (Math.min(first + index + 1, end) - Math.max(first + index, begin)) / (end - begin)
    ));
    return { first, weights };
  });
}

function linearTaps(from, to) {
  const scale = from / to;
  return Array.from({ length: to }, (_, target) => {
    const place = Math.min(Math.max((target + 0.5) * scale - 0.5, 0), from - 1);
    const first = Math.floor(place);
    const share = place - first;
    return { first, weights: Float32Array.from(share ? [1 - share, share] : [1]) };
  });
}

// Mixes the pixels of a picture of so many channels by the taps of both axes; returns RGB bytes.
function mix({ width, height, data }, channels, columns, rows) {
  const line = 3 * columns.length;
  const between = new Float32Array(line * height);
  columns.forEach(({ first, weights }, column) => {
    for (let y = 0; y < height; y += 1) {
      let red = 0, green = 0, blue = 0;
      for (let index = 0, at = (y * width + first) * channels; index < weights.length; index += 1, at += channels) {
        red += weights[index] * data[at];
        green += weights[index] * data[at + 1];
        blue += weights[index] * data[at + 2];
      }
      const to = y * line + 3 * column;
      between[to] = red;
      between[to + 1] = green;
      between[to + 2] = blue;
    }
  });
  const mixed = new Uint8ClampedArray(rows.length * line); // rounds
  rows.forEach(({ first, weights }, y) => {
    for (let place = 0; place < line; place += 1) {
      let value = 0;
      for (let index = 0; index < weights.length; index += 1) {
        value += weights[index] * between[(first + index) * line + place];
      }
      mixed[y * line + place] = value;
    }
  });
  return { width: columns.length, height: rows.length, data: mixed };
}

// Averages blocks of `factor` px to RGB. A JPEG keeps its last, partial blocks; other pictures lose them.
export function reduce({ width, height, data }, factor, isJpeg) {
  const count = isJpeg ? Math.ceil : Math.floor;
  const [newWidth, newHeight] = [count(width / factor), count(height / factor)];
  const sums = new Uint32Array(3 * newWidth * newHeight);
  const usedWidth = Math.min(width, newWidth * factor);
  const usedHeight = Math.min(height, newHeight * factor);
  for (let y = 0; y < usedHeight; y += 1) {
    const line = Math.floor(y / factor) * newWidth;
    for (let x = 0, from = 4 * y * width; x < usedWidth; x += 1, from += 4) {
      const to = 3 * (line + Math.floor(x / factor));
      sums[to] += data[from];
      sums[to + 1] += data[from + 1];
      sums[to + 2] += data[from + 2];
    }
  }
  const reduced = new Uint8ClampedArray(sums.length);
  for (let y = 0, to = 0; y < newHeight; y += 1) {
    const rows = Math.min(factor, height - y * factor);
    for (let x = 0; x < newWidth; x += 1) {
      const pixels = rows * Math.min(factor, width - x * factor);
      for (let channel = 0; channel < 3; channel += 1, to += 1) reduced[to] = sums[to] / pixels;
    }
  }
  return { width: newWidth, height: newHeight, data: reduced };
}

function canvasesOf({ imgsz, stride }) {
  const short = Math.ceil((imgsz * 3) / 4 / stride) * stride;
  return [[imgsz, imgsz], [imgsz, short], [short, imgsz]];
}

// Lays an upright RGBA picture out for the network. Returns the input, float32 [1, 3, height, width] in 0-1, how the
// picture lies in there (px of the input per px of the picture, shifted by `left` and `top`), and the reduced picture.
export function letterbox(picture, input, isJpeg) {
  const { width: fullWidth, height: fullHeight } = picture;
  const factor = reductionOf(picture, input.imgsz, isJpeg);
  const { width, height, data } = factor === 1 ? picture : reduce(picture, factor, isJpeg);
  const channels = factor === 1 ? 4 : 3;
  const long = Math.max(width, height);
  const scale = Math.min(input.imgsz / long, input.max_upscale, Math.max(input.upscale_to / long, 1));
  const newWidth = Math.max(round(width * scale), 1);
  const newHeight = Math.max(round(height * scale), 1);
  const [canvasWidth, canvasHeight] = canvasesOf(input)
    .filter(([w, h]) => w >= newWidth && h >= newHeight)
    .sort(([w1, h1], [w2, h2]) => w1 * h1 - w2 * h2)[0];
  const left = Math.floor((canvasWidth - newWidth) / 2);
  const top = Math.floor((canvasHeight - newHeight) / 2);
  const taps = scale < 0.5 ? areaTaps : linearTaps;
  const inside = mix({ width, height, data }, channels, taps(width, newWidth), taps(height, newHeight));
  const plane = canvasWidth * canvasHeight;
  const tensor = new Float32Array(3 * plane).fill(input.pad / 255);
  for (let y = 0; y < newHeight; y += 1) {
    for (let x = 0; x < newWidth; x += 1) {
      const to = (top + y) * canvasWidth + left + x;
      const from = 3 * (y * newWidth + x);
      for (let channel = 0; channel < 3; channel += 1) tensor[channel * plane + to] = inside.data[from + channel] / 255;
    }
  }
  return {
    tensor,
    shape: [1, 3, canvasHeight, canvasWidth],
    box: { width: fullWidth, height: fullHeight, scale: scale / factor, left, top },
    reduced: { width, height, data, channels, factor },
  };
}

// Cuts the face `xyxy`, in px of the full picture, out of the reduced one. Returns the close-up and its mirror image,
// float32 [1, 3, side, side] in 0-1, and the face's box in both.
export function cutOut({ width, height, data, channels, factor }, xyxy, { face, side }, pad) {
  const [x1, y1, x2, y2] = xyxy.map((value) => value / factor);
  const [boxWidth, boxHeight] = [Math.max(x2 - x1, 1), Math.max(y2 - y1, 1)];
  const scale = Math.min(face / Math.max(boxWidth, boxHeight), MAX_UPSCALE);
  const reach = side / scale / 2 + 2;
  const [left, top] = [(x1 + x2) / 2, (y1 + y2) / 2].map((centre) => Math.floor(Math.max(centre - reach, 0)));
  const right = Math.ceil(Math.min((x1 + x2) / 2 + reach, width));
  const bottom = Math.ceil(Math.min((y1 + y2) / 2 + reach, height));
  let part = { width: right - left, height: bottom - top, data: new Uint8ClampedArray(3 * (right - left) * (bottom - top)) };
  for (let y = top, to = 0; y < bottom; y += 1) {
    for (let x = left; x < right; x += 1, to += 3) {
      const from = (y * width + x) * channels;
      for (let channel = 0; channel < 3; channel += 1) part.data[to + channel] = data[from + channel];
    }
  }
  let centre = [(x1 + x2) / 2 - left, (y1 + y2) / 2 - top];
  let zoom = scale;
  if (scale < 0.5) {
    const size = [Math.max(round(part.width * scale), 1), Math.max(round(part.height * scale), 1)];
    centre = [(centre[0] * size[0]) / part.width, (centre[1] * size[1]) / part.height];
    part = mix(part, 3, areaTaps(part.width, size[0]), areaTaps(part.height, size[1]));
    zoom = 1;
  }
  const plane = side * side;
  const [seen, mirrored] = [new Float32Array(3 * plane), new Float32Array(3 * plane)];
  const at = (x, y, channel) => (
    x < 0 || y < 0 || x >= part.width || y >= part.height ? pad : part.data[3 * (y * part.width + x) + channel]
  );
  for (let y = 0; y < side; y += 1) {
    const fromY = (y - side / 2) / zoom + centre[1];
    const [lowY, shareY] = [Math.floor(fromY), fromY - Math.floor(fromY)];
    for (let x = 0; x < side; x += 1) {
      const fromX = (x - side / 2) / zoom + centre[0];
      const [lowX, shareX] = [Math.floor(fromX), fromX - Math.floor(fromX)];
      for (let channel = 0; channel < 3; channel += 1) {
        const upper = at(lowX, lowY, channel) * (1 - shareX) + at(lowX + 1, lowY, channel) * shareX;
        const lower = at(lowX, lowY + 1, channel) * (1 - shareX) + at(lowX + 1, lowY + 1, channel) * shareX;
        const value = Math.round(upper * (1 - shareY) + lower * shareY) / 255;
        seen[channel * plane + y * side + x] = value;
        mirrored[channel * plane + y * side + side - 1 - x] = value;
      }
    }
  }
  const [halfWidth, halfHeight] = [(boxWidth * scale) / 2, (boxHeight * scale) / 2];
  const box = [-halfWidth, -halfHeight, halfWidth, halfHeight]
    .map((value) => Math.min(Math.max(side / 2 + value, 0), side));
  return { tensors: [seen, mirrored], shape: [1, 3, side, side], box };
}

const area = ([x1, y1, x2, y2]) => Math.max(x2 - x1, 0) * Math.max(y2 - y1, 0);

function common(a, b) {
  return area([Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])]);
}

// The share of the smaller of two boxes that lies in the other.
const ios = (a, b) => common(a, b) / Math.max(Math.min(area(a), area(b)), 1e-9);
const iou = (a, b) => common(a, b) / (area(a) + area(b) - common(a, b));

// Softmax of the logarithms of scores, divided by the temperature, plus the classes' biases where there are some.
export function probabilitiesOf(scores, { temperature, bias }) {
  const logs = scores.map(
    (score, index) => Math.log(Math.min(Math.max(score, LEAST_SCORE), 1)) / temperature + (bias ? bias[index] : 0),
  );
  const most = Math.max(...logs);
  const shares = logs.map((log) => Math.exp(log - most));
  const sum = shares.reduce((a, b) => a + b, 0);
  return shares.map((share) => share / sum);
}

// Turns the network's answer, float32 [1, 4 + classes, anchors], into faces by falling confidence: box in px of the
// picture [x1, y1, x2, y2], confidence, probabilities by class.
export function decode(raw, anchors, box, { classes, thresholds, calibration, conf, maxFaces = 300 }) {
  const at = (row, anchor) => raw[row * anchors + anchor];
  let candidates = [];
  for (let anchor = 0; anchor < anchors; anchor += 1) {
    let sum = 0;
    for (let index = 0; index < classes; index += 1) sum += at(4 + index, anchor);
    const confidence = Math.min(sum, 1);
    if (confidence >= conf) candidates.push({ anchor, confidence });
  }
  candidates.sort((a, b) => b.confidence - a.confidence); // stable
  candidates = candidates.slice(0, MAX_CANDIDATES).map((candidate) => {
    const [x, y, w, h] = [0, 1, 2, 3].map((row) => at(row, candidate.anchor));
    return { ...candidate, inInput: [x - w / 2, y - h / 2, x + w / 2, y + h / 2] };
  });
  const apart = [];
  for (const candidate of candidates) {
    if (apart.every((kept) => iou(candidate.inInput, kept.inInput) <= thresholds.iou)) apart.push(candidate);
  }
  const faces = [];
  for (const { anchor, confidence, inInput } of apart) {
    const xyxy = inInput.map((value, index) => {
      const [shift, most] = index % 2 ? [box.top, box.height] : [box.left, box.width];
      return Math.min(Math.max((value - shift) / box.scale, 0), most);
    });
    if (!(area(xyxy) > 0)) continue; // wholly in the grey border
    if (thresholds.ios < 1 && faces.some((face) => ios(xyxy, face.xyxy) > thresholds.ios)) continue;
    const scores = Array.from({ length: classes }, (_, index) => at(4 + index, anchor));
    faces.push({ xyxy, confidence, probabilities: probabilitiesOf(scores, calibration) });
  }
  return faces.slice(0, maxFaces);
}

// Returns the probabilities that the network's answer to a close-up gives the face at `box`, or null if it sees none.
export function scoresOf(raw, anchors, classes, box) {
  let best = null;
  let most = 0;
  for (let anchor = 0; anchor < anchors; anchor += 1) {
    const [x, y, w, h] = [0, 1, 2, 3].map((row) => raw[row * anchors + anchor]);
    if (!(iou([x - w / 2, y - h / 2, x + w / 2, y + h / 2], box) >= SAME_FACE)) continue;
    const scores = Array.from({ length: classes }, (_, index) => raw[(4 + index) * anchors + anchor]);
    const confidence = scores.reduce((a, b) => a + b, 0);
    if (confidence > most) [best, most] = [scores, confidence];
  }
  return best && probabilitiesOf(best, { temperature: 1 });
}
