package mesh

import (
	"hash/maphash"
	"iter"
)

// shards is how many maps a Table spreads its values over. A change copies one of them
// and the array of pointers, so that it costs about 1/shards of a table.
const shards = 64

var tableSeed = maphash.MakeSeed()

// Table is an immutable map from names to values; with and without give changed copies.
// The zero Table is empty.
type Table[V any] struct {
	shard *[shards]map[Name]V
	size  int
}

func shardOf(n Name) uint64 {
	return maphash.Comparable(tableSeed, n) % shards
}

// Get gives the value under n, or the zero value.
func (t Table[V]) Get(n Name) V {
	v, _ := t.Lookup(n)
	return v
}

// Lookup gives the value under n and whether there is one.
func (t Table[V]) Lookup(n Name) (V, bool) {
	if t.shard == nil {
		var zero V
		return zero, false
	}
	v, ok := t.shard[shardOf(n)][n]
	return v, ok
}

// Len is the number of values.
func (t Table[V]) Len() int { return t.size }

// All walks the table in no particular order.
func (t Table[V]) All() iter.Seq2[Name, V] {
	return func(yield func(Name, V) bool) {
		if t.shard == nil {
			return
		}
		for _, m := range t.shard {
			for n, v := range m {
				if !yield(n, v) {
					return
				}
			}
		}
	}
}

// with gives a copy of t in which n has the value v.
func (t Table[V]) with(n Name, v V) Table[V] {
	next, i := t.copyShard(n)
	if _, had := next.shard[i][n]; !had {
		next.size++
	}
	next.shard[i][n] = v
	return next
}

// without gives a copy of t that has no value for n.
func (t Table[V]) without(n Name) Table[V] {
	if _, ok := t.Lookup(n); !ok {
		return t
	}
	next, i := t.copyShard(n)
	delete(next.shard[i], n)
	next.size--
	return next
}

func (t Table[V]) copyShard(n Name) (Table[V], uint64) {
	next := Table[V]{shard: new([shards]map[Name]V), size: t.size}
	if t.shard != nil {
		*next.shard = *t.shard
	}
	i := shardOf(n)
	m := make(map[Name]V, len(next.shard[i])+1)
	for k, v := range next.shard[i] {
		m[k] = v
	}
	next.shard[i] = m
	return next, i
}
