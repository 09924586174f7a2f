package fuseboard.bench;

import java.io.IOException;
import java.util.stream.Stream;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.util.Utf8;
import org.apache.kafka.common.utils.Bytes;

/**
 * Decodes a ToolCall from the Confluent wire format, reusing the decoder, the record and its strings. One per task:
 * not thread-safe.
 *
 * <p>Projected, the reader's schema holds only the fields the job needs, and Avro skips the others.
 */
final class CallDecoder {
    private static final int HEADER = 5;

    private final GenericDatumReader<GenericRecord> reader;
    private final int actor;
    private final int tool;
    private final int outcome;
    private BinaryDecoder decoder;
    private GenericRecord call;

    CallDecoder(Schema writer, boolean projected) {
        Schema wanted = projected ? projection(writer) : writer;
        reader = new GenericDatumReader<>(writer, wanted);
        actor = wanted.getField("actor").pos();
        tool = wanted.getField("tool").pos();
        outcome = wanted.getField("outcome").pos();
    }

    private static Schema projection(Schema writer) {
        Schema wanted = Schema.createRecord(writer.getName(), null, writer.getNamespace(), false);
        wanted.setFields(Stream.of("actor", "tool", "outcome")
            .map(name -> new Schema.Field(name, writer.getField(name).schema(), null, (Object) null))
            .toList());
        return wanted;
    }

    void decode(byte[] value) {
        if (value.length < HEADER || value[0] != 0) {
            throw new IllegalArgumentException("not in the Confluent wire format");
        }
        decoder = DecoderFactory.get().binaryDecoder(value, HEADER, value.length - HEADER, decoder);
        try {
            call = reader.read(call, decoder);
        } catch (IOException error) {
            throw new IllegalArgumentException("not a ToolCall", error);
        }
    }

    /** The key of the count: actor and tool; the tenant is the same for all of them. */
    Bytes key() {
        Utf8 left = (Utf8) call.get(actor);
        Utf8 right = (Utf8) call.get(tool);
        int length = left.getByteLength();
        byte[] key = new byte[length + 1 + right.getByteLength()];
        System.arraycopy(left.getBytes(), 0, key, 0, length);
        key[length] = '/';
        System.arraycopy(right.getBytes(), 0, key, length + 1, right.getByteLength());
        return Bytes.wrap(key);
    }

    boolean failed() {
        String symbol = call.get(outcome).toString();
        return symbol.equals("ERROR") || symbol.equals("TIMEOUT");
    }
}
