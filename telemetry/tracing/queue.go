package tracing

import (
	"sync"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

// An item is one request of Envoy's.
type item struct {
	req   *collectorv1.ExportTraceServiceRequest
	size  int // bytes, encoded
	spans int
}

func newItem(req *collectorv1.ExportTraceServiceRequest) item {
	it := item{req: req, size: proto.Size(req)}
	for _, rs := range req.GetResourceSpans() {
		for _, ss := range rs.GetScopeSpans() {
			it.spans += len(ss.GetSpans())
		}
	}
	return it
}

// A queue holds at most limit bytes of items; the oldest make room.
type queue struct {
	limit int
	wake  chan struct{} // has a value when the queue is not empty

	mu    sync.Mutex // guards items and size
	items []item
	size  int
}

func newQueue(limit int) *queue { return &queue{limit: limit, wake: make(chan struct{}, 1)} }

// put adds the newest item and returns how many spans were dropped for it.
func (q *queue) put(it item) (dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if it.size > q.limit {
		return it.spans
	}
	n := 0
	for q.size+it.size > q.limit {
		dropped += q.items[n].spans
		q.size -= q.items[n].size
		n++
	}
	clear(q.items[:n]) // for the garbage collector
	q.items = append(q.items[n:], it)
	q.size += it.size
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return dropped
}

// take removes the oldest item.
func (q *queue) take() (it item, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return item{}, false
	}
	it = q.items[0]
	q.items[0] = item{}
	q.items = q.items[1:]
	q.size -= it.size
	return it, true
}

// putBack returns an item that take gave, as the oldest, if there is room still.
func (q *queue) putBack(it item) (dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.size+it.size > q.limit {
		return it.spans
	}
	q.items = append([]item{it}, q.items...)
	q.size += it.size
	return 0
}

func (q *queue) bytes() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.size
}
