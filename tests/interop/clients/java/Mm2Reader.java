import java.io.InputStreamReader;
import java.time.Duration;
import java.util.*;
import org.apache.kafka.connect.mirror.*;

/**
 * Reads what a mirror writes for MirrorMaker 2's tools with those tools: for each line on standard input one line of groups with
 * their translated offsets, upstream clusters and heartbeat topics, until the input ends.
 */
public class Mm2Reader {
    public static void main(String[] args) throws Exception {
        String boot = args[0], source = args[1];
        List<String> groups = List.of(args).subList(2, args.length);
        Map<String, Object> props = Map.of("bootstrap.servers", boot);
        try (var in = new java.io.BufferedReader(new InputStreamReader(System.in)); var client = new MirrorClient(props)) {
            while (in.readLine() != null) {
                var line = new StringJoiner(" ");
                for (String group : groups) {
                    var found = new TreeMap<String, Long>();
                    RemoteClusterUtils.translateOffsets(props, source, group, Duration.ofSeconds(20))
                        .forEach((tp, o) -> found.put(tp.topic() + "-" + tp.partition(), o.offset()));
                    line.add(group + "=" + found.size() + ":" + found.getOrDefault(source + ".kept-0", -1L));
                }
                line.add("upstream=" + client.upstreamClusters()).add("heartbeats=" + client.heartbeatTopics());
                line.add("checkpoints=" + client.checkpointTopics()).add("hops=" + client.replicationHops(source));
                System.out.println(line);
            }
        }
    }
}
