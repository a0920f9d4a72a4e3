// Messages of the server: a JSON head with arrays behind it, as stratoscope.view.wire packs them.

export type Numbers = Float32Array | Float64Array | Int32Array | Uint8Array;

/** An array with its shape, in the order of C. */
export interface Grid {
  data: Numbers;
  shape: number[];
}

const MAGIC = 0x31525453; // "STR1", little-endian

export function decode(buffer: ArrayBuffer): unknown {
  const view = new DataView(buffer);
  if (buffer.byteLength < 8 || view.getUint32(0, true) !== MAGIC) throw new Error("This is no message of the server.");
  const length = view.getUint32(4, true);
  const head: unknown = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  return whole(head, buffer, 8 + length);
}

function whole(value: unknown, buffer: ArrayBuffer, begin: number): unknown {
  if (Array.isArray(value)) return value.map((item) => whole(item, buffer, begin));
  if (value === null || typeof value !== "object") return value;
  const found = value as Record<string, unknown>;
  const array = found["$array"];
  if (array !== undefined) return grid(array as [string, number[], number], buffer, begin);
  return Object.fromEntries(Object.entries(found).map(([key, item]) => [key, whole(item, buffer, begin)]));
}

function grid([type, shape, offset]: [string, number[], number], buffer: ArrayBuffer, begin: number): Grid {
  const count = shape.reduce((a, b) => a * b, 1);
  const place = begin + offset;
  switch (type) {
    case "f4":
      return { data: new Float32Array(buffer, place, count), shape };
    case "f8":
      return { data: new Float64Array(buffer, place, count), shape };
    case "i4":
      return { data: new Int32Array(buffer, place, count), shape };
    case "u1":
      return { data: new Uint8Array(buffer, place, count), shape };
    default:
      throw new Error(`The server sent an array of type ${type}, which this page does not know.`);
  }
}
