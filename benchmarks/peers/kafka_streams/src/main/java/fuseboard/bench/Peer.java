package fuseboard.bench;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.avro.Schema;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * Calls and failures per actor and tool in Kafka Streams: exactly once, RocksDB under a record cache, a changelog.
 *
 * <p>The topic is keyed by actor and the count by actor and tool, so a task has all it needs: the Processor API keeps
 * the count beside its input, where {@code groupBy} of the DSL would send every event through another topic first.
 *
 * <p>Arguments: a properties file with the Streams settings plus {@code peer.topic}, {@code peer.schema} (path of the
 * .avsc) and {@code peer.projected} (true or false).
 */
public final class Peer {
    private static final String STORE = "counts";

    private Peer() {}

    public static void main(String[] arguments) throws IOException, InterruptedException {
        Properties settings = new Properties();
        try (var reader = Files.newBufferedReader(Path.of(arguments[0]))) {
            settings.load(reader);
        }
        KafkaStreams streams = new KafkaStreams(topology(settings), new StreamsConfig(settings));
        CountDownLatch ended = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            streams.close(java.time.Duration.ofSeconds(20));
            ended.countDown();
        }));
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            return null;
        });
        streams.start();
        ended.await();
    }

    private static Topology topology(Properties settings) throws IOException {
        Schema schema = new Schema.Parser().parse(Path.of(settings.getProperty("peer.schema")).toFile());
        boolean projected = Boolean.parseBoolean(settings.getProperty("peer.projected"));
        StreamsBuilder builder = new StreamsBuilder();
        builder.addStateStore(Stores.keyValueStoreBuilder(
            Stores.persistentKeyValueStore(STORE), Serdes.Bytes(), Count.serde()).withCachingEnabled());
        builder.stream(settings.getProperty("peer.topic"), Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
            .process(() -> new Counter(schema, projected), STORE);
        return builder.build();
    }

    private static final class Counter implements Processor<byte[], byte[], Void, Void> {
        private final CallDecoder decoder;
        private KeyValueStore<Bytes, Count> counts;

        Counter(Schema schema, boolean projected) {
            decoder = new CallDecoder(schema, projected);
        }

        @Override
        public void init(ProcessorContext<Void, Void> context) {
            counts = context.getStateStore(STORE);
        }

        @Override
        public void process(Record<byte[], byte[]> record) {
            decoder.decode(record.value());
            Bytes key = decoder.key();
            Count before = counts.get(key);
            counts.put(key, (before == null ? Count.NONE : before).plus(decoder.failed()));
        }
    }
}
