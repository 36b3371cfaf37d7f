/** Types for the parts of `@std/streams` that this project uses (see compat/std/README.md). */
export class TextLineStream extends TransformStream<string, string> {
  constructor(options?: { allowCR?: boolean });
}
export class ByteSliceStream extends TransformStream<Uint8Array, Uint8Array> {
  constructor(start?: number, end?: number);
}
export class LimitedBytesTransformStream extends TransformStream<Uint8Array, Uint8Array> {
  constructor(size: number, options?: { error?: boolean });
}
export function toArrayBuffer(stream: ReadableStream<Uint8Array>): Promise<ArrayBuffer>;
export function toBytes(stream: ReadableStream<Uint8Array>): Promise<Uint8Array>;
export function toText(stream: ReadableStream<string | Uint8Array>): Promise<string>;
export function toTransformStream<I, O>(
  transformer: (src: ReadableStream<I>) => Iterable<O> | AsyncIterable<O>,
  writableStrategy?: QueuingStrategy<I>,
  readableStrategy?: QueuingStrategy<O>,
): TransformStream<I, O>;
export function concatReadableStreams<T>(...streams: ReadableStream<T>[]): ReadableStream<T>;
export function mergeReadableStreams<T>(...streams: ReadableStream<T>[]): ReadableStream<T>;
