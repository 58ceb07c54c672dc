import java.time.Duration;
import java.util.*;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.serialization.*;

/** The Java client: admin, idempotent produce in every codec, a group, commits, a clear error for transactions. */
public class Clients {
    static void check(boolean ok, String what) { if (!ok) throw new AssertionError(what); }

    static Map<String, String> consume(String boot, String topic, int n) {
        Map<String, Object> c = new HashMap<>(Map.of("bootstrap.servers", boot, "group.id", topic + "-g", "auto.offset.reset", "earliest",
            "enable.auto.commit", "false", "session.timeout.ms", "30000", "max.poll.records", "50", "group.protocol", "classic"));
        Map<String, String> got = new HashMap<>();
        try (var consumer = new KafkaConsumer<>(c, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(topic));
            long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(120);
            while (got.size() < n) {
                check(System.nanoTime() < end, "read " + got.size() + " of " + n);
                for (var r : consumer.poll(Duration.ofMillis(200))) {
                    if (got.size() == n) break;
                    got.put(r.key(), r.value());
                    consumer.commitSync(Map.of(new TopicPartition(topic, r.partition()), new OffsetAndMetadata(r.offset() + 1, "note")));
                }
            }
        }
        return got;
    }

    public static void main(String[] args) throws Exception {
        String boot = args[0], topic = args[1];
        int n = 500;
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", boot))) {
            admin.createTopics(List.of(new NewTopic(topic, 3, (short) 1).configs(Map.of("retention.ms", "3600000")))).all().get();
            var plain = admin.createTopics(List.of(new NewTopic(topic + "-plain", 1, (short) 1)));
            for (String key : List.of("retention.ms", "segment.ms")) {
                check(plain.config(topic + "-plain").get().get(key).value().equals("604800000"), "the answer's " + key);
                check(plain.config(topic + "-plain").get().get(key).isDefault(), key + " is not a default");
            }
            var nowhere = new TopicPartition(topic, 99);
            try { admin.alterConsumerGroupOffsets(topic + "-x", Map.of(nowhere, new OffsetAndMetadata(1))).all().get(); check(false, "an offset of no partition was taken"); }
            catch (java.util.concurrent.ExecutionException e) { check(e.getCause() instanceof UnknownTopicOrPartitionException, e.toString()); }
            check(admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size() == 3, "partitions");
            Map<String, String> sent = new HashMap<>();
            for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
                try (var p = new KafkaProducer<>(Map.of("bootstrap.servers", boot, "compression.type", codec, "linger.ms", "5"), new StringSerializer(), new StringSerializer())) {
                    List<java.util.concurrent.Future<RecordMetadata>> fs = new ArrayList<>();
                    for (int i = 0; i < n / 5; i++) {
                        String k = codec + "-" + i;
                        sent.put(k, "value of " + k);
                        fs.add(p.send(new ProducerRecord<>(topic, k, sent.get(k))));
                    }
                    for (var f : fs) f.get(60, TimeUnit.SECONDS);
                }
            }
            var first = consume(boot, topic, 200);
            var second = consume(boot, topic, n - 200);
            var all = new HashMap<>(first); all.putAll(second);
            check(all.equals(sent) && first.size() + second.size() == n, "records " + first.size() + " + " + second.size());
            var offsets = admin.listConsumerGroupOffsets(topic + "-g").partitionsToOffsetAndMetadata().get();
            check(offsets.values().stream().mapToLong(OffsetAndMetadata::offset).sum() == n, offsets.toString());
            check(offsets.values().stream().allMatch(o -> o.metadata().equals("note")), "commit metadata");
            check(admin.describeConsumerGroups(List.of(topic + "-g")).all().get().get(topic + "-g").members().isEmpty(), "members");
            var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            admin.incrementalAlterConfigs(Map.of(resource, List.of(new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact,delete"), AlterConfigOp.OpType.SET)))).all().get();
            check(admin.describeConfigs(List.of(resource)).all().get().get(resource).get("cleanup.policy").value().equals("compact,delete"), "config");
            try { admin.createTopics(List.of(new NewTopic("bad topic", 1, (short) 1))).all().get(); check(false, "a bad name was taken"); }
            catch (java.util.concurrent.ExecutionException e) { check(e.getCause() instanceof InvalidTopicException, e.toString()); }
            try { admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all().get(); check(false, "a topic was made twice"); }
            catch (java.util.concurrent.ExecutionException e) { check(e.getCause() instanceof TopicExistsException, e.toString()); }
            var cut = new TopicPartition(topic, 0);
            admin.deleteRecords(Map.of(cut, RecordsToDelete.beforeOffset(2))).all().get();
            check(admin.listOffsets(Map.of(cut, OffsetSpec.earliest())).partitionResult(cut).get().offset() == 2, "log start");
            admin.deleteConsumerGroups(List.of(topic + "-g")).all().get();
            admin.deleteTopics(List.of(topic)).all().get();
            check(admin.describeCluster().nodes().get().size() == 1, "nodes");
        }
        try (var p = new KafkaProducer<>(Map.of("bootstrap.servers", boot, "transactional.id", "t", "max.block.ms", "5000"), new StringSerializer(), new StringSerializer())) {
            p.initTransactions();
            check(false, "transactions do not exist yet");
        } catch (KafkaException e) { /* a clear, final error */ }
        System.out.println("ok java " + org.apache.kafka.common.utils.AppInfoParser.getVersion());
    }
}
