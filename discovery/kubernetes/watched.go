package kubernetes

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// Waits of a reflector after an error. client-go's own end at a minute, which would be
// added to every outage.
const (
	firstWait   = 500 * time.Millisecond
	longestWait = 5 * time.Second
	// resumeFor is how long a watch that breaks is taken up where it ended, instead of
	// reading everything again.
	resumeFor = time.Minute
)

// watched is a resource with the table that it is read into.
type watched struct {
	resource *resource
	store    cache.ReflectorStore
	full     <-chan struct{} // closed when the first list is in
	fill     func()          // closes it
	optional bool            // a CustomResourceDefinition makes it, that may not be installed
}

func watching[V any](t *table[V]) *watched {
	return &watched{resource: t.resource, store: t, full: t.full, fill: t.fill}
}

// run keeps the table up to date until the context is done.
func (w *watched) run(ctx context.Context, client rest.Interface, retry time.Duration, h *health) {
	for ctx.Err() == nil && w.awaitInstalled(ctx, client, retry, h) {
		w.reflect(ctx, client, h)
	}
}

// reflect watches until the context is done, or the kind is not there any more.
func (w *watched) reflect(ctx context.Context, client rest.Interface, h *health) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	seen := func(err error) {
		h.saw(w.resource, err)
		if w.optional && apierrors.IsNotFound(err) {
			stop()
		}
	}
	r := cache.NewReflectorWithOptions(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			page, err := w.resource.page(ctx, client, o)
			seen(err)
			return page, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
			stream, err := w.resource.watch(ctx, client, o)
			if o.SendInitialEvents == nil || !apierrors.IsInvalid(err) { // an older server, which is listed instead
				seen(err)
			}
			return stream, err
		},
	}, nil, w.store, cache.ReflectorOptions{
		Name: w.resource.name(), TypeDescription: w.resource.path,
		Backoff: &wait.Backoff{Duration: firstWait, Cap: longestWait, Steps: 10, Factor: 2, Jitter: 0.5},
	})
	r.MaxInternalErrorRetryDuration = resumeFor
	r.RunWithContext(ctx)
}

// awaitInstalled waits until the API server has the kind; false is the end. A kind that is
// not there has no objects: nobody needs to wait for it at first. Where it had some, it
// must be found missing twice before they go.
func (w *watched) awaitInstalled(ctx context.Context, client rest.Interface, retry time.Duration, h *health) bool {
	for missing := 0; w.optional; {
		_, err := w.resource.page(ctx, client, metav1.ListOptions{Limit: 1})
		h.saw(w.resource, err)
		switch {
		case err == nil:
			return true
		case apierrors.IsNotFound(err):
			w.fill()
			if missing++; missing == 1 {
				h.log.Info("a kind is not installed; waiting for its CustomResourceDefinition", "resource", w.resource.path)
			} else if missing == 2 {
				_ = w.store.Replace(nil, "") // it cannot fail for nothing
			}
		}
		select {
		case <-time.After(retry):
		case <-ctx.Done():
			return false
		}
	}
	return true
}
