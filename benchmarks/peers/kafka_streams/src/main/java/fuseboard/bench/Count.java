package fuseboard.bench;

import java.nio.ByteBuffer;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;

/** Calls and failures of one actor's use of one tool. */
record Count(long calls, long failures) {
    static final Count NONE = new Count(0, 0);

    Count plus(boolean failed) {
        return new Count(calls + 1, failed ? failures + 1 : failures);
    }

    /** Sixteen bytes: two big-endian longs. */
    static Serde<Count> serde() {
        Serializer<Count> serializer = (topic, count) -> count == null
            ? null
            : ByteBuffer.allocate(16).putLong(count.calls).putLong(count.failures).array();
        Deserializer<Count> deserializer = (topic, bytes) -> {
            if (bytes == null) {
                return null;
            }
            ByteBuffer buffer = ByteBuffer.wrap(bytes);
            return new Count(buffer.getLong(), buffer.getLong());
        };
        return Serdes.serdeFrom(serializer, deserializer);
    }
}
