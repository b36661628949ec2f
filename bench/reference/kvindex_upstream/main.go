// The workload of bench/kvindex.sh through upstream's in-memory KV block index, as one line of JSON.
//
// Built inside a checkout of llm-d/llm-d-router (ebab6879), whose packages it drives:
//
//	mkdir -p cmd/kvindex-bench && cp .../bench/reference/kvindex_upstream/main.go cmd/kvindex-bench/
//	go build -o $LLMD_REFERENCE_DIR/kvindex-bench ./cmd/kvindex-bench
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/llm-d/llm-d-router/pkg/kvcache"
	"github.com/llm-d/llm-d-router/pkg/kvcache/kvblock"
	"k8s.io/apimachinery/pkg/util/sets"
)

const (
	chainBlocks = 600
	eventBlocks = 25
)

// A chain's engine keys are its request keys turned over: one to one, and different.
type chain struct {
	holder string
	keys   []kvblock.BlockHash
	engine []kvblock.BlockHash
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func newChain(random *rand.Rand, holder int) chain {
	c := chain{holder: podName(holder)}
	for range chainBlocks {
		key := random.Uint64()
		c.keys = append(c.keys, kvblock.BlockHash(key))
		c.engine = append(c.engine, kvblock.BlockHash(^key))
	}
	return c
}

func podName(holder int) string { return "10.0.0." + strconv.Itoa(holder) + ":8000" }

func entry(pod string) []kvblock.PodEntry {
	return []kvblock.PodEntry{{PodIdentifier: pod, DeviceTier: "gpu"}}
}

func store(ctx context.Context, index kvblock.Index, c chain, pod string) {
	for at := 0; at < chainBlocks; at += eventBlocks {
		must(index.Add(ctx, c.engine[at:at+eventBlocks], c.keys[at:at+eventBlocks], entry(pod)))
	}
}

func remove(ctx context.Context, index kvblock.Index, c chain) {
	for _, key := range c.engine {
		must(index.Evict(ctx, key, kvblock.EngineKey, entry(c.holder)))
	}
}

func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// Half of the operations remove a block, half store one.
func churn(ctx context.Context, index kvblock.Index, chains []chain, random *rand.Rand, count int) float64 {
	fresh := make([]chain, count)
	for i := range fresh {
		fresh[i] = newChain(random, i%64)
	}
	begin := time.Now()
	for i := range fresh {
		old := &chains[random.Intn(len(chains))]
		remove(ctx, index, *old)
		store(ctx, index, fresh[i], fresh[i].holder)
		*old = fresh[i]
	}
	return float64(2*count*chainBlocks) / time.Since(begin).Seconds()
}

func lookups(ctx context.Context, index kvblock.Index, random *rand.Rand, holders int) map[string]float64 {
	scorer, err := kvcache.NewKVBlockScorer(kvcache.DefaultKVBlockScorerConfig())
	must(err)
	hot := make([]chain, 200)
	for i := range hot {
		hot[i] = newChain(random, 0)
		for h := range holders {
			store(ctx, index, hot[i], podName(h))
		}
	}
	var times []float64
	for i := range 2000 {
		begin := time.Now()
		keys := hot[i%len(hot)].keys
		found, err := index.Lookup(ctx, keys, sets.New[string]())
		must(err)
		scores, err := scorer.Score(ctx, keys, found)
		must(err)
		times = append(times, float64(time.Since(begin).Nanoseconds())/1000)
		if len(scores) != holders || scores[podName(0)] != chainBlocks {
			must(fmt.Errorf("scored %v", scores))
		}
	}
	slices.Sort(times)
	return map[string]float64{"p50_us": times[len(times)/2], "p99_us": times[len(times)*99/100]}
}

func main() {
	blocks := flag.Int("blocks", 1_000_000, "blocks to index")
	flag.Parse()
	ctx := context.Background()
	random := rand.New(rand.NewSource(1))
	index, err := kvblock.NewIndex(ctx, kvblock.DefaultIndexConfig())
	must(err)
	var chains []chain
	for i := range *blocks / chainBlocks {
		chains = append(chains, newChain(random, i%64))
	}
	before := heap()
	begin := time.Now()
	for _, c := range chains {
		store(ctx, index, c, c.holder)
	}
	fill := float64(len(chains)*chainBlocks) / time.Since(begin).Seconds()
	result := map[string]any{
		"blocks":              len(chains) * chainBlocks,
		"fill_blocks_per_s":   fill,
		"bytes_per_block":     float64(heap()-before) / float64(len(chains)*chainBlocks),
		"apply_ops_per_s":     churn(ctx, index, chains, random, 500),
		"lookup_one_holder":   lookups(ctx, index, random, 1),
		"lookup_nine_holders": lookups(ctx, index, random, 9),
	}
	must(json.NewEncoder(os.Stdout).Encode(result))
}
