/**
 * Captures: reading and writing pcap and pcapng, and the `pcap` network.
 * @module
 */
export * from "./byte_source.ts";
export * from "./pcapng_parser.ts";
export * from "./capture_reader.ts";
export * from "./capture_sink.ts";
export * from "./capture_writer.ts";
export * from "./captured_packet.ts";
export * from "./link_types.ts";
export { default as pcap, type PcapOptions } from "./pcap.ts";
export * from "./pcap_format.ts";
export * from "./pcapng_writer.ts";
export * from "./recorder.ts";
export * from "./replay.ts";
