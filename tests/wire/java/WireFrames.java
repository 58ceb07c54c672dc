import java.io.*;
import java.lang.reflect.Modifier;
import java.lang.reflect.ParameterizedType;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.protocol.*;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.Field;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.protocol.types.Type;
import org.apache.kafka.common.record.internal.BaseRecords;
import org.apache.kafka.common.record.internal.MemoryRecords;

/**
 * Kafka's own message classes write and read what Sundog reads and writes.
 *
 *   frames SEED COUNT FILE   COUNT random messages of every API, version and direction, and of every persisted record
 *   check FILE               messages that Sundog wrote: decode, encode, same bytes
 *   facts                    name, path, nullable versions, default of every member (tests/data/kafka/defaults.tsv)
 *
 * A file is entries of: int32 length of what follows, uint8 what (0 request, 1 response, 2 record), int16 API key or
 * -1, int16 version, uint8 length and name, the encoded message.
 */
public class WireFrames {
    static final String[] RECORD_PACKAGES = {
        "org.apache.kafka.common.metadata.", "org.apache.kafka.common.message.",
        "org.apache.kafka.coordinator.group.generated.", "org.apache.kafka.coordinator.transaction.generated."};
    static final String[] RECORDS = {
        "RegisterBrokerRecord", "UnregisterBrokerRecord", "TopicRecord", "PartitionRecord", "ConfigRecord",
        "PartitionChangeRecord", "FenceBrokerRecord", "UnfenceBrokerRecord", "RemoveTopicRecord",
        "DelegationTokenRecord", "UserScramCredentialRecord", "FeatureLevelRecord", "ClientQuotaRecord",
        "ProducerIdsRecord", "BrokerRegistrationChangeRecord", "AccessControlEntryRecord",
        "RemoveAccessControlEntryRecord", "NoOpRecord", "ZkMigrationStateRecord", "RemoveUserScramCredentialRecord",
        "BeginTransactionRecord", "EndTransactionRecord", "AbortTransactionRecord", "RemoveDelegationTokenRecord",
        "RegisterControllerRecord", "ClearElrRecord", "OffsetCommitKey", "OffsetCommitValue", "GroupMetadataKey",
        "GroupMetadataValue", "TransactionLogKey", "TransactionLogValue", "LeaderChangeMessage",
        "SnapshotHeaderRecord", "SnapshotFooterRecord", "KRaftVersionRecord", "VotersRecord", "EndTxnMarker",
        "ConsumerProtocolSubscription", "ConsumerProtocolAssignment"};

    record Kind(int what, short key, String name, Class<?> type) {
        Message fresh() throws Exception { return (Message) type.getDeclaredConstructor().newInstance(); }
        Schema[] schemas() throws Exception { return (Schema[]) type.getField("SCHEMAS").get(null); }
    }

    public static void main(String[] a) throws Exception {
        switch (a.length == 0 ? "" : a[0]) {
            case "frames" -> frames(Long.parseLong(a[1]), Integer.parseInt(a[2]), Path.of(a[3]));
            case "check" -> check(Path.of(a[1]));
            case "facts" -> facts();
            default -> { System.err.println("usage: WireFrames frames SEED COUNT FILE | check FILE | facts"); System.exit(2); }
        }
    }

    static List<Kind> kinds() throws Exception {
        List<Kind> all = new ArrayList<>();
        for (ApiKeys k : ApiKeys.values()) {
            if (!k.hasValidVersion()) continue;
            all.add(new Kind(0, k.id, k.name + "Request", k.messageType.newRequest().getClass()));
            all.add(new Kind(1, k.id, k.name + "Response", k.messageType.newResponse().getClass()));
        }
        for (String name : RECORDS) all.add(new Kind(2, (short) -1, name, recordClass(name)));
        return all;
    }

    static Class<?> recordClass(String name) throws Exception {
        for (String p : RECORD_PACKAGES) {
            try { return Class.forName(p + name); } catch (ClassNotFoundException e) { /* the next */ }
        }
        throw new ClassNotFoundException(name);
    }

    // ---- writing

    static void frames(long seed, int count, Path file) throws Exception {
        Random r = new Random(seed);
        try (DataOutputStream out = new DataOutputStream(new BufferedOutputStream(Files.newOutputStream(file)))) {
            for (Kind k : kinds()) {
                Schema[] schemas = k.schemas();
                Message fresh = k.fresh();
                for (short v = fresh.lowestSupportedVersion(); v <= fresh.highestSupportedVersion(); v++)
                    for (int i = 0; i < count; i++) {
                        Message m = k.fresh();
                        fill(r, m, schemas[v]);
                        put(out, k, v, MessageUtil.toByteBufferAccessor(m, v).buffer());
                    }
            }
        }
    }

    static void put(DataOutputStream out, Kind k, short version, ByteBuffer bytes) throws IOException {
        byte[] name = k.name.getBytes(StandardCharsets.UTF_8);
        out.writeInt(1 + 2 + 2 + 1 + name.length + bytes.remaining());
        out.writeByte(k.what);
        out.writeShort(k.key);
        out.writeShort(version);
        out.writeByte(name.length);
        out.write(name);
        byte[] b = new byte[bytes.remaining()];
        bytes.get(b);
        out.write(b);
    }

    /** Sets the members that the schema, one version's, has; Kafka refuses others. */
    static void fill(Random r, Object o, Schema s) throws Exception {
        Map<String, java.lang.reflect.Field> fields = new HashMap<>();
        for (java.lang.reflect.Field f : o.getClass().getDeclaredFields())
            if (!Modifier.isStatic(f.getModifiers()) && !f.getName().startsWith("_")) {
                f.setAccessible(true);
                fields.put(f.getName().toLowerCase(Locale.ROOT), f);
            }
        for (BoundField b : s.fields()) {
            if (b.def.type instanceof TaggedFields t) {
                for (Field f : t.fields().values())
                    if (r.nextInt(3) > 0) set(r, o, fields, f);
            } else set(r, o, fields, b.def);
        }
    }

    static void set(Random r, Object o, Map<String, java.lang.reflect.Field> fields,
                    Field f) throws Exception {
        java.lang.reflect.Field to = fields.get(f.name.replace("_", "").toLowerCase(Locale.ROOT));
        if (to == null) throw new IllegalStateException(o.getClass() + " has no member " + f.name);
        if (f.type.isNullable() && r.nextInt(4) == 0) { to.set(o, null); return; }
        Optional<Type> element = f.type.arrayElementType();
        to.set(o, element.isPresent() ? list(r, to, element.get()) : value(r, to.getType(), f.type));
    }

    @SuppressWarnings({"unchecked", "rawtypes"})
    static Collection<?> list(Random r, java.lang.reflect.Field to, Type element) throws Exception {
        java.lang.reflect.Type generic = to.getGenericType() instanceof ParameterizedType p
            ? p : to.getType().getGenericSuperclass();
        Class<?> of = (Class<?>) ((ParameterizedType) generic).getActualTypeArguments()[0];
        Collection c = Collection.class == to.getType() || List.class == to.getType()
            ? new ArrayList() : (Collection) to.getType().getDeclaredConstructor().newInstance();
        for (int n = r.nextInt(4); n > 0; n--) c.add(value(r, of, element));
        return c;
    }

    static Object value(Random r, Class<?> c, Type t) throws Exception {
        if (c == boolean.class || c == Boolean.class) return r.nextBoolean();
        if (c == byte.class || c == Byte.class) return (byte) number(r);
        if (c == short.class || c == Short.class) return (short) number(r);
        if (c == int.class || c == Integer.class) return t == Type.UINT16 ? (int) number(r) & 0xffff : (int) number(r);
        if (c == long.class || c == Long.class) return t == Type.UNSIGNED_INT32 ? number(r) & 0xffffffffL : number(r);
        if (c == double.class || c == Double.class) return r.nextGaussian();
        if (c == Uuid.class) return r.nextInt(4) == 0 ? Uuid.ZERO_UUID : new Uuid(r.nextLong(), r.nextLong());
        if (c == String.class) return text(r);
        if (c == byte[].class) return bytes(r, 20);
        if (c == ByteBuffer.class) return ByteBuffer.wrap(bytes(r, 20));
        if (c == BaseRecords.class) return MemoryRecords.readableRecords(ByteBuffer.wrap(bytes(r, 60)));
        Object o = c.getDeclaredConstructor().newInstance();
        fill(r, o, (Schema) t);
        return o;
    }

    static long number(Random r) {
        return switch (r.nextInt(4)) { case 0 -> 0; case 1 -> -1; case 2 -> 1L << r.nextInt(64); default -> r.nextLong(); };
    }

    static byte[] bytes(Random r, int most) {
        byte[] b = new byte[r.nextInt(most + 1)];
        r.nextBytes(b);
        return b;
    }

    static String text(Random r) {
        StringBuilder b = new StringBuilder();
        for (int n = r.nextInt(40) == 0 ? 200 : r.nextInt(14); n > 0; n--)
            b.append(r.nextInt(8) == 0 ? "äßλ漢" .charAt(r.nextInt(4)) : (char) (' ' + r.nextInt(95)));
        return b.toString();
    }

    // ---- reading

    static void check(Path file) throws Exception {
        Map<String, Kind> byName = new HashMap<>();
        for (Kind k : kinds()) byName.put(k.what + "/" + k.key + (k.what == 2 ? k.name : ""), k);
        ByteBuffer in = ByteBuffer.wrap(Files.readAllBytes(file));
        int n = 0, bad = 0;
        while (in.hasRemaining()) {
            int size = in.getInt(), end = in.position() + size, what = in.get();
            short key = in.getShort(), version = in.getShort();
            byte[] name = new byte[in.get() & 0xff];
            in.get(name);
            byte[] body = new byte[end - in.position()];
            in.get(body);
            String text = new String(name, StandardCharsets.UTF_8);
            Kind k = byName.get(what + "/" + key + (what == 2 ? text : ""));
            String why = k == null ? "unknown to Kafka" : same(k, version, body);
            n++;
            if (why != null && bad++ < 20) System.out.printf("%s v%d: %s%n", text, version, why);
        }
        System.out.printf("%d messages of Sundog read by Kafka, %d wrong%n", n, bad);
        System.exit(bad == 0 && n > 0 ? 0 : 1);
    }

    static String same(Kind k, short version, byte[] body) {
        try {
            ByteBuffer in = ByteBuffer.wrap(body);
            Message m = k.fresh();
            m.read(new ByteBufferAccessor(in), version);
            if (in.hasRemaining()) return in.remaining() + " bytes too many";
            ByteBuffer again = MessageUtil.toByteBufferAccessor(m, version).buffer();
            return again.equals(ByteBuffer.wrap(body)) ? null : "other bytes come back: " + m;
        } catch (Exception e) {
            return e.toString();
        }
    }

    // ---- facts

    static void facts() throws Exception {
        for (Kind k : kinds()) {
            Schema[] schemas = k.schemas();
            Map<String, TreeSet<Integer>> nullable = new LinkedHashMap<>();
            for (int v = 0; v < schemas.length; v++) if (schemas[v] != null) nulls(v, "", schemas[v], nullable);
            Message m = k.fresh();
            nullable.forEach((path, versions) -> {
                try {
                    System.out.printf("%s\t%s\t%s\t%s%n", k.name, path, versions.isEmpty() ? "" : versions.first(), dflt(m, path));
                } catch (Exception e) { throw new IllegalStateException(k.name + " " + path, e); }
            });
        }
    }

    static void nulls(int v, String prefix, Schema s, Map<String, TreeSet<Integer>> out) {
        for (BoundField b : s.fields()) {
            if (b.def.type instanceof TaggedFields t) t.fields().values().forEach(f -> nullField(v, prefix, f, out));
            else nullField(v, prefix, b.def, out);
        }
    }

    static void nullField(int v, String prefix, Field f, Map<String, TreeSet<Integer>> out) {
        TreeSet<Integer> versions = out.computeIfAbsent(prefix + f.name, k -> new TreeSet<>());
        if (f.type.isNullable()) versions.add(v);
        Optional<Type> e = f.type.arrayElementType();
        if (e.orElse(f.type) instanceof Schema s) nulls(v, prefix + f.name + (e.isPresent() ? "[]." : "."), s, out);
    }

    /** The default of a member, in an object of its own class. */
    static String dflt(Object o, String path) throws Exception {
        String[] steps = path.split("\\.");
        Object v = null;
        for (int i = 0; i < steps.length; i++) {
            String name = steps[i].replace("[]", "").replace("_", "");
            java.lang.reflect.Field f = Arrays.stream(o.getClass().getDeclaredFields())
                .filter(x -> x.getName().equalsIgnoreCase(name)).findFirst().orElseThrow();
            f.setAccessible(true);
            v = f.get(o);
            if (i == steps.length - 1) break;
            Class<?> c = f.getType();
            if (steps[i].endsWith("[]")) {
                java.lang.reflect.Type g = f.getGenericType() instanceof ParameterizedType p ? p : c.getGenericSuperclass();
                c = (Class<?>) ((ParameterizedType) g).getActualTypeArguments()[0];
            }
            o = c.getDeclaredConstructor().newInstance();
        }
        if (v == null) return "null";
        if (v instanceof String s) return s.isEmpty() ? "empty" : s;
        if (v instanceof byte[] || v instanceof ByteBuffer || v instanceof Collection) return "empty";
        if (v instanceof Uuid u) return u.equals(Uuid.ZERO_UUID) ? "0" : u.toString();
        if (v instanceof Message) return "struct";
        if (v instanceof Double d) return Long.toString(d.longValue());
        return v.toString();
    }
}
