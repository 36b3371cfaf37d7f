/**
 * Captures: reading and writing pcap and pcapng, and the `pcap` network.
 * @module
 */
export * from "./byte_source.ts";
export * from "./capture_interface.ts";
export * from "./capture_reader.ts";
export * from "./capture_sink.ts";
export * from "./capture_writer.ts";
export * from "./captured_packet.ts";
export * from "./gunzip.ts";
export * from "./link_types.ts";
export * from "./packet_flags.ts";
export * from "./output_file.ts";
export { default as pcap, type PcapOptions } from "./pcap.ts";
export * from "./pcap_encoder.ts";
export * from "./pcap_parser.ts";
export * from "./pcapng_blocks.ts";
export * from "./pcapng_encoder.ts";
export * from "./pcapng_parser.ts";
export * from "./record_encoder.ts";
export * from "./recorder.ts";
export * from "./replay.ts";
export * from "./replay_counters.ts";
