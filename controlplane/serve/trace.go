package serve

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/telemetry/tracing"
)

const (
	// maxOpen bounds the changes followed at once; of a flood only some are traced.
	maxOpen = 64
	// giveUp is when a change that some proxy never answers is closed as an error.
	giveUp = 30 * time.Second
	// pace is how often the proxies are looked at while changes are open. The end of a
	// span is the time of the last ACK, not of the look.
	pace = 10 * time.Millisecond
	// maxNamed bounds the objects that a span lists.
	maxNamed = 20
)

// tracer makes one trace of every change of objects: a span "change" from its arrival to
// the last proxy's answer, with a child "translate" for our own part of it.
type tracer struct {
	tracer trace.Tracer
	xds    *xds.Server
	opened chan openChange
}

// openChange is a change on its way to the proxies.
type openChange struct {
	span     trace.Span
	revision uint64
	began    time.Time
}

func newTracer(provider trace.TracerProvider, server *xds.Server) *tracer {
	return &tracer{tracer: provider.Tracer("github.com/heddle-mesh/heddle/controlplane"), xds: server, opened: make(chan openChange, maxOpen)}
}

// submit traces one submission.
func (t *tracer) submit(changes []mesh.Change, submit func([]mesh.Change) (uint64, error)) (uint64, error) {
	began := time.Now()
	ctx, span := t.tracer.Start(context.Background(), "change", trace.WithAttributes(named(changes)...))
	_, translate := t.tracer.Start(ctx, "translate")
	revision, err := submit(changes)
	translate.End()
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
		span.End()
		return revision, err
	}
	span.SetAttributes(attribute.Int64("heddle.revision", int64(revision)))
	select {
	case t.opened <- openChange{span, revision, began}:
	default: // too many at once
		span.End()
	}
	return revision, nil
}

func named(changes []mesh.Change) []attribute.KeyValue {
	var objects []string
	for _, c := range changes[:min(len(changes), maxNamed)] {
		objects = append(objects, c.Ref.String())
	}
	return []attribute.KeyValue{attribute.StringSlice("heddle.objects", objects), attribute.Int("heddle.changes", len(changes))}
}

// run closes the spans of changes that every proxy has answered, until the context is done.
func (t *tracer) run(ctx context.Context) error {
	var open []openChange
	defer func() {
		for _, c := range open {
			c.span.End()
		}
	}()
	for {
		var tick <-chan time.Time
		if len(open) > 0 {
			tick = time.After(pace)
		}
		select {
		case c := <-t.opened:
			open = append(open, c)
		case <-tick:
			open = t.settle(open)
		case <-ctx.Done():
			return nil
		}
	}
}

// settle ends what is done and gives what is still open.
func (t *tracer) settle(open []openChange) (still []openChange) {
	proxies := t.xds.Status()
	for _, c := range open {
		behind, last := 0, c.began
		for _, p := range proxies {
			if p.Settled < c.revision {
				behind++
			}
			if p.LastAck.After(last) {
				last = p.LastAck
			}
		}
		switch {
		case behind == 0:
			c.span.SetAttributes(attribute.Int("heddle.proxies", len(proxies)))
			c.span.End(trace.WithTimestamp(last))
		case time.Since(c.began) > giveUp:
			c.span.SetAttributes(attribute.Int("heddle.proxies", len(proxies)), attribute.Int("heddle.proxies.behind", behind))
			c.span.SetStatus(codes.Error, "some proxies have not answered")
			c.span.End()
		default:
			still = append(still, c)
		}
	}
	return still
}

// openTracing starts the exporter of the control plane's own traces.
func (cp *controlPlane) openTracing(ctx context.Context) (shutdown func(context.Context) error, err error) {
	provider, shutdown, err := tracing.Start(ctx, tracing.Config{
		Service: "heddle-controlplane", Endpoint: cp.config.OTLP, Insecure: true,
		SamplingRatio: 1, // changes of objects are rare beside requests
		Log:           cp.config.Log,
	})
	if err != nil {
		return nil, err
	}
	cp.tracer = newTracer(provider, cp.xds)
	return shutdown, nil
}
