package main

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/dynamic"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/serve"
	"github.com/heddle-mesh/heddle/integration/kubernetes"
	"github.com/heddle-mesh/heddle/integration/kubernetes/ingress"
)

// ingressAccount is the service account of the proxies that serve Ingresses, and the name
// of their Deployment and Service.
const ingressAccount = "heddle-ingress"

// publishRetry is how long it is waited after the API server refused something.
const publishRetry = 5 * time.Second

// gateway is who those proxies are.
func (f *clusterFlags) gateway() mesh.Name {
	return mesh.Name{Namespace: f.meshNamespace(), Name: ingressAccount}
}

// publishRoots tells the proxies that are not injected how to recognise the control plane.
func (f *clusterFlags) publishRoots(ctx context.Context, config *serve.Config, client *kubernetes.Client, parts serve.Parts) error {
	for {
		changed := parts.CA.Changed()
		var retry <-chan time.Time
		if err := client.PublishRoots(ctx, f.meshNamespace(), fingerprints(parts.CA)); err != nil && ctx.Err() == nil {
			config.Log.Warn("new proxies of the ingress cannot start", "error", err)
			retry = time.After(publishRetry)
		}
		select {
		case <-changed:
		case <-retry:
		case <-ctx.Done():
			return nil
		}
	}
}

// withIngresses makes a leader write into the Ingresses, too, where they are served.
func (f *clusterFlags) withIngresses(run func(context.Context) error, config *serve.Config, objects dynamic.Interface, parts serve.Parts) func(context.Context) error {
	if !f.ingress {
		return run
	}
	writer := ingress.New(ingress.Config{Client: objects, Snapshot: parts.Pipeline.Snapshot, Gateway: f.gateway(), Log: config.Log})
	return func(ctx context.Context) error {
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return run(ctx) })
		group.Go(func() error { return writer.Run(ctx) })
		return group.Wait()
	}
}
