package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/heddle-mesh/heddle/controlplane/admin"
	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/serve"
	discovery "github.com/heddle-mesh/heddle/discovery/kubernetes"
	"github.com/heddle-mesh/heddle/discovery/manifest"
	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/ca"
	"github.com/heddle-mesh/heddle/integration/kubernetes"
	"github.com/heddle-mesh/heddle/integration/kubernetes/inject"
	"github.com/heddle-mesh/heddle/integration/kubernetes/status"
	"github.com/heddle-mesh/heddle/integration/kubernetes/webhook"
)

// kubectlAdvice says how the objects of a mesh on Kubernetes are written.
const kubectlAdvice = "they are the cluster's; use kubectl, or heddle with --control-plane kubernetes"

// clusterFlags are the flags of a control plane on Kubernetes.
type clusterFlags struct {
	on         bool
	kubeconfig string
	namespace  string
	services   []string

	issuerSecret string

	webhooks  string
	sidecars  inject.Config
	resources string // of sidecars, as JSON

	ingress bool
}

func (f *clusterFlags) add(fs *pflag.FlagSet) {
	fs.BoolVar(&f.on, "kubernetes", false, "be the control plane of the Kubernetes cluster that this runs in")
	fs.StringVar(&f.kubeconfig, "kubeconfig", "", "with --kubernetes: file that says where the API server is, for a control plane outside of the cluster")
	fs.StringVar(&f.namespace, "mesh-namespace", "", "with --kubernetes: namespace of the mesh's own objects (default that of the pod, else heddle-system)")
	fs.StringSliceVar(&f.services, "service-cidr", nil, "with --kubernetes: ranges of Services' addresses (default what the cluster says)")
	fs.StringVar(&f.issuerSecret, "issuer-secret", "", "with --kubernetes: Secret of the mesh's namespace with a certificate that signs, its key and the roots (tls.crt, tls.key, ca.crt), as cert-manager makes and renews it; empty for a root of our own")
	f.sidecars = inject.DefaultConfig()
	fs.StringVar(&f.webhooks, "webhooks", "", "with --kubernetes: ADDRESS:PORT for the API server's admission calls; empty for none")
	fs.StringVar(&f.sidecars.Revision, "revision", f.sidecars.Revision, "with --webhooks: the revision whose namespaces and pods get sidecars from here")
	fs.StringVar(&f.sidecars.Image, "sidecar-image", "", "with --webhooks: image of the sidecars")
	fs.StringVar(&f.sidecars.PullPolicy, "sidecar-pull-policy", f.sidecars.PullPolicy, "with --webhooks: when the image is pulled")
	fs.StringVar(&f.resources, "sidecar-resources", "", "with --webhooks: resources of the sidecars, as JSON of a container's")
	fs.StringVar(&f.sidecars.Collector, "sidecar-collector", "", "with --webhooks: HOST:PORT that takes the sidecars' traces")
	fs.BoolVar(&f.ingress, "ingress", false, "with --kubernetes: serve Ingresses of class heddle by the proxies of service account "+ingressAccount+" in the mesh's namespace")
	fs.StringVar(&f.sidecars.Hold, "sidecar-hold", f.sidecars.Hold, "with --webhooks: what holds an application back until its sidecar is ready: hook or probe")
	fs.BoolVar(&f.sidecars.CNI, "cni", false, "with --webhooks: the CNI plugin captures traffic, pods need no init container for it")
}

// join makes config one of a control plane on Kubernetes.
func (f *clusterFlags) join(ctx context.Context, config *serve.Config) error {
	api, err := f.rest()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewClient(api)
	if err != nil {
		return err
	}
	if config.Workloads, err = f.ranges(ctx, client); err != nil {
		return err
	}
	config.Virtual.VirtualV4, config.Virtual.VirtualV6 = netip.Prefix{}, netip.Prefix{}
	if f.issuerSecret != "" {
		config.Issuer = &kubernetes.IssuerSecret{Client: client, Namespace: f.meshNamespace(), Name: f.issuerSecret, Log: config.Log}
	} else {
		authority := ca.DefaultConfig()
		authority.TrustDomain, authority.SVIDTTL = config.TrustDomain, config.SVIDTTL
		roots := &kubernetes.Roots{Client: client, Namespace: f.meshNamespace(), Authority: authority, Log: config.Log}
		if err := roots.Share(ctx, filepath.Join(config.StateDir, "identity")); err != nil {
			return err
		}
		config.Roots = roots
	}
	source := discovery.DefaultConfig()
	source.REST, source.Log = api, config.Log
	source.Options = manifest.Options{TrustDomain: config.TrustDomain, ClusterDomain: config.ClusterDomain}
	if f.ingress {
		source.Gateway = f.gateway()
	}
	pods := new(podSource)
	config.Outside = &serve.Outside{
		Advice:    kubectlAdvice,
		Attestors: []attest.Attestor{client.Attestor(config.TrustDomain, pods)},
		Open: func(submit serve.Submit) (serve.Source, error) {
			source.Submit = func(changes []mesh.Change) (uint64, error) { return submit(changes) }
			var err error
			pods.Source, err = discovery.New(source)
			return pods.Source, err
		},
	}
	webhooks, err := f.webhookServer(config, client)
	if err != nil {
		return err
	}
	objects, err := dynamic.NewForConfig(api)
	if err != nil {
		return fmt.Errorf("client of the API server: %w", err)
	}
	config.Outside.Run = func(ctx context.Context, parts serve.Parts) error {
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return webhooks(ctx, parts) })
		group.Go(func() error { return f.writeStatuses(ctx, config, client, objects, pods, parts) })
		if f.ingress {
			group.Go(func() error { return f.publishRoots(ctx, config, client, parts) })
		}
		return group.Wait()
	}
	return nil
}

// writeStatuses writes the statuses of objects, whenever we are the leader of the replicas.
func (f *clusterFlags) writeStatuses(ctx context.Context, config *serve.Config, client *kubernetes.Client, objects dynamic.Interface, pods *podSource, parts serve.Parts) error {
	select {
	case <-pods.Synced():
	case <-ctx.Done():
		return nil
	}
	name := os.Getenv("HEDDLE_POD_NAME")
	if name == "" {
		var err error
		if name, err = os.Hostname(); err != nil {
			return err
		}
	}
	others := &otherReplicas{self: name, service: mesh.Name{Namespace: f.meshNamespace(), Name: "heddle-controlplane" + f.suffix()}, parts: parts}
	defer others.close() //nolint:errcheck // the process ends
	writer := status.New(status.Config{
		Client: objects, Snapshot: parts.Pipeline.Snapshot, Log: config.Log,
		Statuses: func(ctx context.Context, refs []mesh.Ref) ([]*admin.Status, error) {
			conns, err := others.conns()
			if err != nil {
				return nil, err
			}
			ctx, cancel := context.WithTimeout(ctx, callTimeout)
			defer cancel()
			return parts.Admin.Statuses(ctx, refs, conns)
		},
		Rejected: func() map[mesh.Ref]status.Rejection {
			all, _ := pods.Rejected()
			out := map[mesh.Ref]status.Rejection{}
			for ref, why := range all {
				out[ref] = status.Rejection{Generation: why.Generation, Err: why.Err}
			}
			return out
		},
	})
	leader := kubernetes.Leader{Client: client, Namespace: f.meshNamespace(), Name: "heddle-status" + f.suffix(), Identity: name, Log: config.Log}
	return leader.Run(ctx, f.withIngresses(writer.Run, config, objects, parts))
}

// suffix ends the names of what belongs to a revision.
func (f *clusterFlags) suffix() string {
	if f.sidecars.Revision == "default" {
		return ""
	}
	return "-" + f.sidecars.Revision
}

// webhookServer makes what answers admission calls.
func (f *clusterFlags) webhookServer(config *serve.Config, client *kubernetes.Client) (run func(context.Context, serve.Parts) error, err error) {
	if f.webhooks == "" {
		return func(context.Context, serve.Parts) error { return nil }, nil
	}
	if f.sidecars.Image == "" {
		return nil, usagef("--webhooks needs --sidecar-image")
	}
	if err := inject.CheckHold(f.sidecars.Hold); err != nil {
		return nil, usagef("--sidecar-hold %w", err)
	}
	if f.resources != "" {
		if err := json.Unmarshal([]byte(f.resources), &f.sidecars.Resources); err != nil {
			return nil, usagef("--sidecar-resources: %w", err)
		}
	}
	sidecars, suffix := f.sidecars, f.suffix()
	sidecars.TrustDomain, sidecars.ClusterDomain = config.TrustDomain, config.ClusterDomain
	service := "heddle-controlplane" + suffix
	sidecars.ControlPlane = service + "." + f.meshNamespace() + ".svc:15010"
	return func(ctx context.Context, parts serve.Parts) error {
		return webhook.New(webhook.Config{
			Listen: f.webhooks, Client: client, Namespace: f.meshNamespace(), Service: service, Secret: "heddle-webhook" + suffix,
			Injector: "heddle-injector" + suffix, Validator: "heddle-validator" + suffix,
			Inject: func() inject.Config {
				now := sidecars
				now.Roots = fingerprints(parts.CA)
				return now
			},
			Options: manifest.Options{TrustDomain: config.TrustDomain, ClusterDomain: config.ClusterDomain}, Doubts: parts.Admin.Doubts, Log: config.Log,
		}).Run(ctx)
	}, nil
}

// fingerprints are those of the mesh's roots, by which new sidecars know the control plane.
func fingerprints(authority *ca.CA) []string {
	var out []string
	for _, cert := range authority.Bundle().X509Authorities() {
		sum := sha256.Sum256(cert.Raw)
		out = append(out, hex.EncodeToString(sum[:]))
	}
	return out
}

// rest finds the API server.
func (f *clusterFlags) rest() (config *rest.Config, err error) {
	if f.kubeconfig != "" {
		config, err = clientcmd.BuildConfigFromFlags("", f.kubeconfig)
	} else if config, err = rest.InClusterConfig(); errors.Is(err, rest.ErrNotInCluster) {
		return nil, usagef("--kubernetes: this is no pod of a cluster; say where the API server is with --kubeconfig FILE")
	}
	if err != nil {
		return nil, fmt.Errorf("find the API server: %w", err)
	}
	config.UserAgent = "heddle-controlplane"
	config.QPS, config.Burst = 50, 100 // a few thousand pods that start together prove themselves in a minute
	return config, nil
}

func (f *clusterFlags) ranges(ctx context.Context, client *kubernetes.Client) ([]netip.Prefix, error) {
	if len(f.services) == 0 {
		return client.ServiceCIDRs(ctx)
	}
	var out []netip.Prefix
	for _, text := range f.services {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, usagef("--service-cidr %q: want a range such as 10.96.0.0/16", text)
		}
		out = append(out, p)
	}
	return out, nil
}

// meshNamespace is where the mesh's own objects are.
func (f *clusterFlags) meshNamespace() string {
	if f.namespace != "" {
		return f.namespace
	}
	if name := os.Getenv("HEDDLE_POD_NAMESPACE"); name != "" {
		return name
	}
	return "heddle-system"
}

// podSource gives attestation the pods that discovery has.
type podSource struct{ *discovery.Source }

func (s *podSource) AwaitPod(ctx context.Context, namespace, name, uid string) (kubernetes.Pod, error) {
	p, err := s.Source.AwaitPod(ctx, namespace, name, uid)
	return kubernetes.Pod{UID: p.UID, ServiceAccount: p.ServiceAccount}, err
}
