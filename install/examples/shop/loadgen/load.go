package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

const (
	// maxOpen bounds the calls under way: where the shop hangs, calls that cannot begin
	// count as failed.
	maxOpen = 64
	timeout = 10 * time.Second
	maxBody = 1 << 20 // bytes read of an answer
)

// load calls URLs in turn and counts.
type load struct {
	urls   []string
	client *http.Client
	tracer trace.Tracer

	mu        sync.Mutex // guards what follows
	total     counts     // since the beginning
	latencies histogram  // of total
	last      counts     // since the last line
}

func newLoad(urls ...string) *load {
	transport := &http.Transport{MaxIdleConnsPerHost: maxOpen, IdleConnTimeout: 30 * time.Second}
	return &load{urls: urls, client: &http.Client{Transport: transport, Timeout: timeout}, tracer: otel.Tracer("shop/loadgen")}
}

// run begins a call at each tick of calls, and writes a line at each of lines, until the
// context is done; then it waits for the calls under way and writes the total.
func (l *load) run(ctx context.Context, calls, lines <-chan time.Time, out io.Writer) {
	var open sync.WaitGroup
	slots := make(chan struct{}, maxOpen)
	for i := 0; ; {
		select {
		case <-ctx.Done():
			open.Wait()
			fmt.Fprintln(out, "total", l.total)
			return
		case <-lines:
			fmt.Fprintln(out, l.next())
		case <-calls:
			url := l.urls[i%len(l.urls)]
			i++
			select {
			case slots <- struct{}{}:
				open.Go(func() {
					defer func() { <-slots }()
					l.call(context.WithoutCancel(ctx), url)
				})
			default:
				l.count(0, "", fmt.Errorf("%d calls are under way", maxOpen))
			}
		}
	}
}

// call makes one call in a trace of its own.
func (l *load) call(ctx context.Context, url string) {
	ctx, span := l.tracer.Start(ctx, "GET", trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(semconv.HTTPRequestMethodKey.String(http.MethodGet), semconv.URLFull(url)))
	defer span.End()
	began := time.Now()
	version, err := l.get(ctx, span, url)
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	l.count(time.Since(began), version, err)
}

// get reads an answer to its end and returns which version of the API gave it.
func (l *load) get(ctx context.Context, span trace.Span, url string) (version string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	otel.GetTextMapPropagator().Inject(ctx, propagation.HeaderCarrier(req.Header))
	resp, err := l.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	span.SetAttributes(semconv.HTTPResponseStatusCode(resp.StatusCode))
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxBody)); err != nil {
		return "", fmt.Errorf("read the answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s", resp.Status)
	}
	return resp.Header.Get("Shop-Version"), nil
}

func (l *load) count(latency time.Duration, version string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total.add(version, err)
	l.last.add(version, err)
	if err == nil {
		l.last.latencies = append(l.last.latencies, latency)
		l.latencies.add(latency)
	}
}

func (l *load) summary() summary {
	l.mu.Lock()
	defer l.mu.Unlock()
	milliseconds := func(q float64) float64 { return float64(l.latencies.quantile(q).Microseconds()) / 1000 }
	return summary{l.total.ok, l.total.failed, milliseconds(.5), milliseconds(.99), maps.Clone(l.total.versions), l.total.reason}
}

// next gives the counts since the last time.
func (l *load) next() counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.last
	l.last = counts{}
	return out
}
