"""Contracts: Avro schemas, wire format, codecs, keys and topics."""
