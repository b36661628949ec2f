// Runs a script of index operations through llm-d-router's Redis back end and prints what Redis
// then holds and what lookups find. See README.md.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sort"

	"github.com/llm-d/llm-d-router/pkg/kvcache"
	"github.com/llm-d/llm-d-router/pkg/kvcache/kvblock"
	"github.com/redis/go-redis/v9"
	"k8s.io/apimachinery/pkg/util/sets"
)

type operation struct {
	Op      string              `json:"op"`
	Engine  []kvblock.BlockHash `json:"engine,omitempty"`
	Request []kvblock.BlockHash `json:"request,omitempty"`
	Entries []kvblock.PodEntry  `json:"entries,omitempty"`
	Pod     string              `json:"pod,omitempty"`
	Pods    []string            `json:"pods,omitempty"`
}

type outcome struct {
	Scores map[string]float64 `json:"scores,omitempty"` // of a lookup
	Key    kvblock.BlockHash  `json:"key,omitempty"`    // of a parent
}

type result struct {
	Hashes   map[string]map[string]string  `json:"hashes"`
	Sets     map[string]map[string]float64 `json:"sets"`
	Outcomes []outcome                     `json:"outcomes"`
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func perform(ctx context.Context, index kvblock.Index, scorer kvcache.KVBlockScorer, op operation,
	writes bool) (outcome, bool) {
	switch op.Op {
	case "lookup":
		found, err := index.Lookup(ctx, op.Request, sets.New(op.Pods...))
		must(err)
		scores, err := scorer.Score(ctx, op.Request, found)
		must(err)
		return outcome{Scores: scores}, true
	case "parent":
		key, err := index.GetRequestKey(ctx, op.Engine[0])
		if err != nil {
			key = kvblock.EmptyBlockHash
		}
		return outcome{Key: key}, true
	}
	if !writes {
		return outcome{}, false
	}
	switch op.Op {
	case "add":
		must(index.Add(ctx, op.Engine, op.Request, op.Entries))
	case "remove":
		for _, key := range op.Engine {
			must(index.Evict(ctx, key, kvblock.EngineKey, op.Entries))
		}
		for _, key := range op.Request {
			must(index.Evict(ctx, key, kvblock.RequestKey, op.Entries))
		}
	case "clear":
		must(index.Clear(ctx, op.Pod))
	default:
		must(fmt.Errorf("unknown operation %q", op.Op))
	}
	return outcome{}, false
}

func contents(ctx context.Context, client *redis.Client) result {
	r := result{Hashes: map[string]map[string]string{}, Sets: map[string]map[string]float64{}}
	keys, err := client.Keys(ctx, "*").Result()
	must(err)
	sort.Strings(keys)
	for _, key := range keys {
		kind, err := client.Type(ctx, key).Result()
		must(err)
		switch kind {
		case "hash":
			r.Hashes[key], err = client.HGetAll(ctx, key).Result()
			must(err)
		case "zset":
			members, err := client.ZRangeWithScores(ctx, key, 0, -1).Result()
			must(err)
			r.Sets[key] = map[string]float64{}
			for _, m := range members {
				r.Sets[key][m.Member.(string)] = m.Score
			}
		default:
			must(fmt.Errorf("key %q is a %s", key, kind))
		}
	}
	return r
}

func main() {
	if len(os.Args) != 4 || (os.Args[1] != "record" && os.Args[1] != "read") {
		fmt.Fprintln(os.Stderr, "usage: redis-index record|read SCRIPT ADDRESS")
		os.Exit(2)
	}
	ctx := context.Background()
	text, err := os.ReadFile(os.Args[2])
	must(err)
	var script []operation
	must(json.Unmarshal(text, &script))
	index, err := kvblock.NewRedisIndex(&kvblock.RedisIndexConfig{Address: os.Args[3]})
	must(err)
	scorer, err := kvcache.NewKVBlockScorer(kvcache.DefaultKVBlockScorerConfig())
	must(err)

	outcomes := []outcome{}
	for _, op := range script {
		if o, told := perform(ctx, index, scorer, op, os.Args[1] == "record"); told {
			outcomes = append(outcomes, o)
		}
	}
	r := contents(ctx, index.(*kvblock.RedisIndex).RedisClient)
	r.Outcomes = outcomes
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	must(encoder.Encode(r))
}
