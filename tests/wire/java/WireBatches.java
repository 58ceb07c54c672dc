import java.io.*;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.message.*;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.*;
import org.apache.kafka.common.utils.*;
import org.apache.kafka.storage.internals.log.*;

/**
 * Record batches between Kafka's classes and Sundog.
 *
 *   write SEED SIZE FILE   batches of every codec and kind; SIZE is the number of records of the largest; from 1000 on,
 *                          one record of a megabyte too
 *   check FILE             batches that Sundog wrote: CRC, header, records
 *   verdicts FILE          batches with Sundog's verdict: what does Kafka's LogValidator say?
 *
 * A file of batches is entries of: int32 length of the rest, int32 length of the batch, the batch, int32 records, and
 * per record int64 offset, int64 timestamp, key, value, int32 headers, per header key and value; each of these an
 * int32 length (-1: null) and bytes. A verdict is: int32 length of the rest, int16 Kafka error, uint8 length and text,
 * the batch.
 */
public class WireBatches {
    static final CompressionType[] CODECS = CompressionType.values();
    static final long NOW = 1_700_000_000_000L;

    public static void main(String[] a) throws Exception {
        switch (a.length == 0 ? "" : a[0]) {
            case "write" -> write(new Random(Long.parseLong(a[1])), Integer.parseInt(a[2]), Path.of(a[3]));
            case "check" -> check(Path.of(a[1]));
            case "verdicts" -> verdicts(Path.of(a[1]));
            default -> { System.err.println("usage: WireBatches write SEED SIZE FILE | check FILE | verdicts FILE"); System.exit(2); }
        }
    }

    // ---- writing

    static void write(Random r, int size, Path file) throws Exception {
        try (DataOutputStream out = new DataOutputStream(new BufferedOutputStream(Files.newOutputStream(file)))) {
            for (CompressionType codec : CODECS)
                for (int records : new int[] {1, 2, 30, size})
                    for (int kind = 0; kind < 4; kind++) data(r, out, codec, records, kind);
            for (CompressionType codec : CODECS) compacted(r, out, codec);
            if (size >= 1000) for (CompressionType codec : CODECS) data(r, out, codec, -1, 1);
            control(r, out);
        }
    }

    /** kind 0: plain, 1: idempotent, 2: transactional, 3: LogAppendTime. records -1: one of a megabyte. */
    static void data(Random r, DataOutputStream out, CompressionType codec, int records, int kind) throws Exception {
        for (RecordBatch b : build(r, codec, records, kind).batches()) put(out, b);
    }

    static MemoryRecords build(Random r, CompressionType codec, int records, int kind) {
        boolean producer = kind == 1 || kind == 2;
        MemoryRecordsBuilder b = MemoryRecords.builder(ByteBuffer.allocate(4096), RecordBatch.MAGIC_VALUE_V2,
            Compression.of(codec).build(), kind == 3 ? TimestampType.LOG_APPEND_TIME : TimestampType.CREATE_TIME,
            r.nextInt(1000000), NOW, producer ? r.nextInt(100000) : RecordBatch.NO_PRODUCER_ID,
            producer ? (short) r.nextInt(100) : RecordBatch.NO_PRODUCER_EPOCH,
            producer ? r.nextInt(100000) : RecordBatch.NO_SEQUENCE, kind == 2, r.nextInt(500));
        if (records < 0) b.append(NOW, text(r, 10), text(r, 1_000_000), new Header[0]);
        for (int i = 0; i < records; i++)
            b.append(NOW + r.nextInt(100000) - 50000, r.nextInt(5) == 0 ? null : text(r, 20),
                r.nextInt(7) == 0 ? null : text(r, r.nextInt(20) == 0 ? 3000 : 80), headers(r));
        return b.build();
    }

    static Header[] headers(Random r) {
        Header[] h = new Header[r.nextInt(3) == 0 ? r.nextInt(4) : 0];
        for (int i = 0; i < h.length; i++)
            h[i] = new RecordHeader("h" + r.nextInt(100), r.nextInt(4) == 0 ? null : text(r, 9));
        return h;
    }

    static byte[] text(Random r, int most) {
        byte[] b = new byte[most > 100000 ? most : r.nextInt(most + 1)];
        for (int i = 0; i < b.length; i++) b[i] = (byte) ("abcdefgh\0\u007f".charAt(r.nextInt(10)));
        return b;
    }

    /** What the log cleaner makes of a batch: gaps, a delete horizon, and a batch without records. */
    static void compacted(Random r, DataOutputStream out, CompressionType codec) throws Exception {
        for (int keep : new int[] {2, 7, 1000}) {
            var filter = new MemoryRecords.RecordFilter(NOW, 86400000L) {
                @Override protected BatchRetentionResult checkBatchRetention(RecordBatch b) {
                    return new BatchRetentionResult(BatchRetention.RETAIN_EMPTY, false);
                }
                @Override protected boolean shouldRetainRecord(RecordBatch b, org.apache.kafka.common.record.internal.Record x) {
                    return x.offset() % keep == keep - 1;
                }
            };
            ByteBuffer to = ByteBuffer.allocate(1 << 20);
            var result = build(r, codec, 30, 1).filterTo(filter, to, BufferSupplier.NO_CACHING);
            ByteBuffer done = result.outputBuffer();
            done.flip();
            for (RecordBatch b : MemoryRecords.readableRecords(done).batches()) put(out, b);
        }
    }

    static void control(Random r, DataOutputStream out) throws Exception {
        for (ControlRecordType t : new ControlRecordType[] {ControlRecordType.COMMIT, ControlRecordType.ABORT})
            for (RecordBatch b : MemoryRecords.withEndTransactionMarker(77, NOW, 3, 4711, (short) 5,
                    new EndTransactionMarker(t, 31)).batches()) put(out, b);
        var voter = new LeaderChangeMessage.Voter().setVoterId(1);
        MemoryRecords[] all = {
            MemoryRecords.withLeaderChangeMessage(5, NOW, 2, ByteBuffer.allocate(500),
                new LeaderChangeMessage().setLeaderId(1).setVoters(List.of(voter)).setGrantingVoters(List.of(voter))),
            MemoryRecords.withSnapshotHeaderRecord(6, NOW, 2, ByteBuffer.allocate(500), new SnapshotHeaderRecord().setLastContainedLogTimestamp(9)),
            MemoryRecords.withSnapshotFooterRecord(7, NOW, 2, ByteBuffer.allocate(500), new SnapshotFooterRecord()),
            MemoryRecords.withKRaftVersionRecord(8, NOW, 2, ByteBuffer.allocate(500), new KRaftVersionRecord().setKRaftVersion((short) 1)),
            MemoryRecords.withVotersRecord(9, NOW, 2, ByteBuffer.allocate(500), new VotersRecord())};
        for (MemoryRecords m : all) for (RecordBatch b : m.batches()) put(out, b);
    }

    static void put(DataOutputStream out, RecordBatch b) throws Exception {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        DataOutputStream d = new DataOutputStream(bytes);
        ByteBuffer raw = ByteBuffer.allocate(b.sizeInBytes());
        ((DefaultRecordBatch) b).writeTo(raw);
        d.writeInt(raw.position());
        d.write(raw.array(), 0, raw.position());
        int at = bytes.size(), n = 0;
        d.writeInt(0);
        for (var x : b) { record(d, x); n++; }
        byte[] all = bytes.toByteArray();
        ByteBuffer.wrap(all).putInt(at, n);
        out.writeInt(all.length);
        out.write(all);
    }

    static void record(DataOutputStream d, org.apache.kafka.common.record.internal.Record x) throws Exception {
        d.writeLong(x.offset());
        d.writeLong(x.timestamp());
        bytes(d, x.hasKey() ? x.key() : null);
        bytes(d, x.hasValue() ? x.value() : null);
        d.writeInt(x.headers().length);
        for (Header h : x.headers()) {
            bytes(d, ByteBuffer.wrap(h.key().getBytes(StandardCharsets.UTF_8)));
            bytes(d, h.value() == null ? null : ByteBuffer.wrap(h.value()));
        }
    }

    static void bytes(DataOutputStream d, ByteBuffer b) throws Exception {
        if (b == null) { d.writeInt(-1); return; }
        byte[] x = new byte[b.remaining()];
        b.duplicate().get(x);
        d.writeInt(x.length);
        d.write(x);
    }

    // ---- reading

    static void check(Path file) throws Exception {
        ByteBuffer in = ByteBuffer.wrap(Files.readAllBytes(file));
        int n = 0, bad = 0;
        while (in.hasRemaining()) {
            int end = in.getInt() + in.position(), size = in.getInt();
            ByteBuffer batch = in.slice(in.position(), size);
            in.position(in.position() + size);
            byte[] listed = new byte[end - in.position()];
            in.get(listed);
            String why = same(batch, listed);
            n++;
            if (why != null && bad++ < 20) System.out.printf("batch %d of Sundog: %s%n", n, why);
        }
        System.out.printf("%d batches of Sundog read by Kafka, %d wrong%n", n, bad);
        System.exit(bad == 0 && n > 0 ? 0 : 1);
    }

    static String same(ByteBuffer batch, byte[] listed) {
        try {
            ByteArrayOutputStream seen = new ByteArrayOutputStream();
            DataOutputStream d = new DataOutputStream(seen);
            int batches = 0, n = 0;
            d.writeInt(0);
            for (RecordBatch b : MemoryRecords.readableRecords(batch).batches()) {
                b.ensureValid();
                batches++;
                if (b.sizeInBytes() != batch.remaining()) return "its length is " + b.sizeInBytes();
                if (b.countOrNull() != null && !b.isControlBatch() && b.lastOffset() - b.baseOffset() + 1 < b.countOrNull()) return "its count";
                for (var x : b) { x.ensureValid(); record(d, x); n++; }
            }
            byte[] all = seen.toByteArray();
            ByteBuffer.wrap(all).putInt(0, n);
            return batches != 1 ? batches + " batches" : Arrays.equals(all, listed) ? null : "other records than it says";
        } catch (Exception e) { return e.toString(); }
    }

    // ---- verdicts

    /** Where Sundog is stricter on purpose, by its own words. */
    static final String[] STRICTER = {"unknown attributes", "delete horizon", "more than one", "base offset must be 0",
        "producer id", "transactional batch without", "LogAppendTime", "offset deltas are not in order", "malformed",
        "the last record is cut"};

    static void verdicts(Path file) throws Exception {
        ByteBuffer in = ByteBuffer.wrap(Files.readAllBytes(file));
        int n = 0, bad = 0, accepted = 0, stricter = 0;
        Map<String, Integer> others = new TreeMap<>();
        while (in.hasRemaining()) {
            int end = in.getInt() + in.position();
            short ours = in.getShort();
            byte[] text = new byte[in.get() & 0xff];
            in.get(text);
            byte[] batch = new byte[end - in.position()];
            in.get(batch);
            String why = new String(text, StandardCharsets.UTF_8);
            Errors theirs = kafka(batch);
            n++;
            if (ours == 0 && theirs == Errors.NONE) { accepted++; continue; }
            boolean known = Arrays.stream(STRICTER).anyMatch(why::contains);
            if (ours != 0 && theirs == Errors.NONE && known) { stricter++; continue; }
            if (ours == 0 || theirs == Errors.NONE) {
                if (bad++ < 20) System.out.printf("verdict %d: Sundog %s (%s), Kafka %s%n", n, Errors.forCode(ours), why, theirs);
            } else if (ours != theirs.code())
                others.merge(Errors.forCode(ours) + " where Kafka says " + theirs, 1, Integer::sum);
        }
        System.out.printf("%d verdicts: %d accepted by both, %d refused by Sundog alone as documented, %d wrong%n", n, accepted, stricter, bad);
        others.forEach((k, v) -> System.out.printf("  %d times %s%n", v, k));
        System.exit(bad == 0 && n > 0 ? 0 : 1);
    }

    static final LogValidator.MetricsRecorder NO_METRICS = new LogValidator.MetricsRecorder() {
        public void recordInvalidMagic() {}
        public void recordInvalidOffset() {}
        public void recordInvalidSequence() {}
        public void recordInvalidChecksums() {}
        public void recordNoKeyCompactedTopic() {}
    };

    /** What a Kafka broker answers: Produce's own checks, the log's, then the validator. */
    static Errors kafka(byte[] bytes) {
        try {
            MemoryRecords records = MemoryRecords.readableRecords(ByteBuffer.wrap(bytes.clone()));
            org.apache.kafka.common.requests.ProduceRequest.validateRecords((short) 9, records);
            CompressionType codec = CompressionType.NONE;
            for (MutableRecordBatch b : records.batches()) {
                b.ensureValid();
                codec = b.compressionType();
            }
            new LogValidator(records, new TopicPartition("t", 0), new Still(), codec, Compression.of(codec).build(), false,
                RecordBatch.MAGIC_VALUE_V2, TimestampType.CREATE_TIME, Long.MAX_VALUE, 3600000L, 0, AppendOrigin.CLIENT)
                .validateMessagesAndAssignOffsets(PrimitiveRef.ofLong(0), NO_METRICS, BufferSupplier.NO_CACHING);
            return Errors.NONE;
        } catch (RecordValidationException e) {
            return Errors.forException(e.invalidException());
        } catch (Throwable e) {
            return Errors.forException(e);
        }
    }

    /** Time stands still at the moment that the verdicts were made for. */
    static class Still implements Time {
        public long milliseconds() { return NOW; }
        public long nanoseconds() { return NOW * 1_000_000; }
        public void sleep(long ms) {}
        public void waitObject(Object o, java.util.function.Supplier<Boolean> condition, long deadline) {}
    }
}
