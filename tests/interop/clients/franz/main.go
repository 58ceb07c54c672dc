// franz-go: idempotent produce in every codec, a group, commits, admin.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "franz-go:", err)
		os.Exit(1)
	}
}

func check(ok bool, format string, args ...any) {
	if !ok {
		must(fmt.Errorf(format, args...))
	}
}

func consume(ctx context.Context, boot, topic string, n int) map[string]string {
	c, err := kgo.NewClient(kgo.SeedBrokers(boot), kgo.ConsumerGroup(topic+"-g"), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(30*time.Second))
	must(err)
	got := map[string]string{}
	for len(got) < n {
		fs := c.PollRecords(ctx, n-len(got))
		for _, e := range fs.Errors() {
			must(e.Err)
		}
		for _, r := range fs.Records() {
			got[string(r.Key)] = string(r.Value)
		}
		must(c.CommitRecords(ctx, fs.Records()...))
	}
	c.Close()
	return got
}

func main() {
	boot, topic, n := os.Args[1], os.Args[2], 500
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Second)
	defer cancel()
	plain, err := kgo.NewClient(kgo.SeedBrokers(boot))
	must(err)
	adm := kadm.NewClient(plain)
	created, err := adm.CreateTopics(ctx, 3, 1, map[string]*string{"retention.ms": kadm.StringPtr("3600000")}, topic)
	must(err)
	must(created[topic].Err)
	sent := map[string]string{}
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
	for ci, codec := range codecs {
		p, err := kgo.NewClient(kgo.SeedBrokers(boot), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(codec))
		must(err)
		for i := 0; i < n/len(codecs); i++ {
			k := fmt.Sprintf("%d-%d", ci, i)
			sent[k] = "value of " + k
			p.Produce(ctx, &kgo.Record{Key: []byte(k), Value: []byte(sent[k]), Headers: []kgo.RecordHeader{{Key: "h", Value: nil}}}, func(_ *kgo.Record, err error) { must(err) })
		}
		must(p.Flush(ctx))
		p.Close()
	}
	first := consume(ctx, boot, topic, 200)
	second := consume(ctx, boot, topic, n-200)
	for k := range first {
		_, twice := second[k]
		check(!twice, "%s was read twice", k)
	}
	for k, v := range sent {
		a, b := first[k], second[k]
		check(a == v || b == v, "%s: %q %q", k, a, b)
	}
	ends, err := adm.ListEndOffsets(ctx, topic)
	must(err)
	total := int64(0)
	ends.Each(func(o kadm.ListedOffset) { total += o.Offset })
	check(total == int64(n), "end offsets add up to %d", total)
	lags, err := adm.Lag(ctx, topic+"-g")
	must(err)
	check(lags[topic+"-g"].Lag.Total() == 0, "lag %d", lags[topic+"-g"].Lag.Total())
	cfg, err := adm.DescribeTopicConfigs(ctx, topic)
	must(err)
	check(len(cfg) == 1 && cfg[0].Err == nil && len(cfg[0].Configs) > 10, "configs %v", cfg)
	_, err = adm.CreatePartitions(ctx, 2, topic)
	must(err)
	_, err = adm.DeleteGroups(ctx, topic+"-g")
	must(err)
	_, err = adm.DeleteTopics(ctx, topic)
	must(err)
	plain.Close()
	fmt.Println("ok franz-go")
}
