package kubernetes

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// Level is how bad a finding is.
type Level int

// The levels.
const (
	OK Level = iota
	Warning
	Error
)

// Finding is the result of one check: what is so, and what to do about it.
type Finding struct {
	Check   string
	Level   Level
	Message string
	Fix     string
}

// Checker checks a cluster for Heddle. It reads, and changes nothing.
type Checker struct {
	client    dynamic.Interface
	raw       rest.Interface
	namespace string
	now       func() time.Time
}

// NewChecker makes a checker for an installation in a namespace.
func NewChecker(config *rest.Config, namespace string) (*Checker, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client of the API server: %w", err)
	}
	raw, err := rawClient(config)
	if err != nil {
		return nil, fmt.Errorf("client of the API server: %w", err)
	}
	return &Checker{client, raw, namespace, time.Now}, nil
}

// check is one check; a nil error of it with no findings is well.
type check struct {
	name string
	run  func(context.Context) ([]Finding, error)
}

// Before are the checks of a cluster on which Heddle is to be installed.
func (c *Checker) Before(ctx context.Context) []Finding {
	return c.run(ctx, []check{
		{"version", c.version}, {"service addresses", c.serviceCIDRs}, {"gateway api", c.gatewayAPI}, {"rights", c.rights},
		{"nodes", c.nodes}, {"other meshes", c.otherMeshes}, {"clock", c.clock},
	})
}

// After are the checks of an installation.
func (c *Checker) After(ctx context.Context) []Finding {
	return c.run(ctx, []check{
		{"version", c.version}, {"gateway api", c.gatewayAPI}, {"clock", c.clock}, {"definitions", c.definitions}, {"control plane", c.controlPlane}, {"spread", c.spread},
		{"webhook certificate", c.webhooks}, {"webhook endpoints", c.webhookEndpoints}, {"root key", c.root},
		{"labels", c.labels}, {"sidecars", c.sidecars}, {"revisions", c.revisions}, {"sidecar versions", c.versions}, {"ports left out", c.leftOut}, {"network policies", c.networkPolicies}, {"ingress", c.ingress},
	})
}

// Versions is the one check of After for sidecars that are not of their control plane's
// version, as after an upgrade.
func (c *Checker) Versions(ctx context.Context) []Finding {
	return c.run(ctx, []check{{"sidecar versions", c.versions}})
}

func (c *Checker) run(ctx context.Context, checks []check) []Finding {
	var out []Finding
	for _, one := range checks {
		findings, err := one.run(ctx)
		if err != nil {
			findings = []Finding{{Level: Warning, Message: "cannot be checked: " + err.Error(), Fix: "check again with the rights of a cluster's administrator"}}
		}
		for _, f := range findings {
			f.Check = one.name
			out = append(out, f)
		}
	}
	return out
}

func fine(format string, args ...any) []Finding {
	return []Finding{{Level: OK, Message: fmt.Sprintf(format, args...)}}
}

func bad(level Level, fix, format string, args ...any) Finding {
	return Finding{Level: level, Message: fmt.Sprintf(format, args...), Fix: fix}
}

// list reads all objects of a resource into a typed list's items.
func list[T any](ctx context.Context, c *Checker, group, version, resource, namespace string) ([]T, error) {
	var client dynamic.ResourceInterface = c.client.Resource(schema.GroupVersionResource{Group: group, Version: version, Resource: resource})
	if namespace != "" {
		client = c.client.Resource(schema.GroupVersionResource{Group: group, Version: version, Resource: resource}).Namespace(namespace)
	}
	found, err := client.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	out := make([]T, len(found.Items))
	for i := range found.Items {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(found.Items[i].Object, &out[i]); err != nil {
			return nil, fmt.Errorf("read %s %s: %w", resource, found.Items[i].GetName(), err)
		}
	}
	return out, nil
}

// oldest is the first minor version of Kubernetes 1 that has all that we need: native
// sidecars on by default, ServiceCIDRs, and sleep hooks.
const oldest = 33

func (c *Checker) version(ctx context.Context) ([]Finding, error) {
	var v struct{ Major, Minor, GitVersion string }
	if err := c.get(ctx, "/version", &v); err != nil {
		return nil, err
	}
	minor, err := strconv.Atoi(strings.TrimRight(v.Minor, "+"))
	if err != nil {
		return nil, fmt.Errorf("version %q: %w", v.Minor, err)
	}
	if v.Major == "1" && minor < oldest {
		return []Finding{bad(Error, "upgrade the cluster", "Kubernetes is %s; sidecars that start first and end last need 1.%d", v.GitVersion, oldest)}, nil
	}
	return fine("Kubernetes %s", v.GitVersion), nil
}

func (c *Checker) serviceCIDRs(ctx context.Context) ([]Finding, error) {
	found, err := list[unstructured.Unstructured](ctx, c, "networking.k8s.io", "v1", "servicecidrs", "")
	if apierrors.IsNotFound(err) || err == nil && len(found) == 0 {
		return []Finding{bad(Error, "install with --set serviceCIDRs=[10.96.0.0/16], the range of your Services", "the cluster does not say the ranges of its Services' addresses")}, nil
	}
	return fine("%d ranges", len(found)), err
}

func (c *Checker) gatewayAPI(ctx context.Context) ([]Finding, error) {
	const fix = "install Gateway API's standard definitions, 1.1 or newer, if you want routes"
	_, err := c.client.Resource(schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"}).List(ctx, metav1.ListOptions{Limit: 1})
	if apierrors.IsNotFound(err) {
		return []Finding{bad(Warning, fix, "HTTPRoutes are not installed: nobody can write routes")}, nil
	}
	_, grpc := c.client.Resource(schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "grpcroutes"}).List(ctx, metav1.ListOptions{Limit: 1})
	if err == nil && apierrors.IsNotFound(grpc) {
		return []Finding{bad(Warning, fix, "GRPCRoutes are not installed")}, nil
	}
	return fine("HTTPRoute and GRPCRoute"), err
}

// rights are those that an installation needs.
func (c *Checker) rights(ctx context.Context) ([]Finding, error) {
	var out []Finding
	for _, need := range [][3]string{
		{"", "namespaces", "patch"}, {"rbac.authorization.k8s.io", "clusterroles", "patch"}, {"rbac.authorization.k8s.io", "clusterrolebindings", "patch"},
		{"apps", "deployments", "patch"}, {"apiextensions.k8s.io", "customresourcedefinitions", "patch"},
		{"admissionregistration.k8s.io", "mutatingwebhookconfigurations", "patch"}, {"admissionregistration.k8s.io", "validatingwebhookconfigurations", "patch"},
	} {
		review := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
			"spec": map[string]any{"resourceAttributes": map[string]any{"group": need[0], "resource": need[1], "verb": need[2]}},
		}}
		answer, err := c.client.Resource(schema.GroupVersionResource{Group: "authorization.k8s.io", Version: "v1", Resource: "selfsubjectaccessreviews"}).Create(ctx, review, metav1.CreateOptions{})
		if err != nil {
			return nil, err
		}
		if allowed, _, _ := unstructured.NestedBool(answer.Object, "status", "allowed"); !allowed {
			out = append(out, bad(Error, "install as somebody who may", "you may not %s %s", need[2], need[1]))
		}
	}
	if len(out) == 0 {
		return fine("you may install"), nil
	}
	return out, nil
}

func (c *Checker) nodes(ctx context.Context) ([]Finding, error) {
	nodes, err := list[corev1.Node](ctx, c, "", "v1", "nodes", "")
	if err != nil {
		return nil, err
	}
	var out []Finding
	zones := map[string]bool{}
	for _, n := range nodes {
		zones[n.Labels[corev1.LabelTopologyZone]] = true
		if os := n.Status.NodeInfo.OperatingSystem; os != "" && os != "linux" {
			out = append(out, bad(Warning, "keep pods of the mesh on Linux nodes", "node %s runs %s, where there are no sidecars", n.Name, os))
		}
		if arch := n.Status.NodeInfo.Architecture; arch != "" && arch != "amd64" && arch != "arm64" {
			out = append(out, bad(Warning, "keep pods of the mesh on amd64 or arm64 nodes", "node %s is %s, for which there is no Envoy", n.Name, arch))
		}
	}
	if len(zones) == 1 && zones[""] {
		out = append(out, bad(Warning, "label nodes with "+corev1.LabelTopologyZone, "no node says its zone: requests cannot stay near"))
	}
	if len(out) == 0 {
		return fine("%d nodes in %d zones", len(nodes), len(zones)), nil
	}
	return out, nil
}

// otherMeshes finds what would capture the same traffic.
func (c *Checker) otherMeshes(ctx context.Context) ([]Finding, error) {
	hooks, err := list[unstructured.Unstructured](ctx, c, "admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", "")
	if err != nil {
		return nil, err
	}
	var out []Finding
	for _, h := range hooks {
		for _, mesh := range []string{"istio", "linkerd", "kuma", "consul"} {
			if strings.Contains(h.GetName(), mesh) {
				out = append(out, bad(Warning, "do not label a namespace for both", "%s is installed (webhook %s); a pod can have one sidecar only", mesh, h.GetName()))
			}
		}
	}
	if len(out) == 0 {
		return fine("none that injects sidecars"), nil
	}
	return out, nil
}

// maxSkew is how far our clock and the API server's may be apart.
const maxSkew = time.Minute

func (c *Checker) clock(ctx context.Context) ([]Finding, error) {
	date, err := c.date(ctx)
	if err != nil {
		return nil, err
	}
	if off := c.now().Sub(date).Abs(); off > maxSkew {
		return []Finding{bad(Warning, "set the clocks of both by NTP", "the API server's clock and this machine's are %s apart; certificates that live an hour need clocks that agree", off.Round(time.Second))}, nil
	}
	return fine("agrees with the API server's"), nil
}

func (c *Checker) definitions(ctx context.Context) ([]Finding, error) {
	ours, err := Definitions()
	if err != nil {
		return nil, err
	}
	var out []Finding
	for _, d := range ours {
		_, err := c.client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}).Get(ctx, d.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			out = append(out, bad(Error, "heddle install", "%s is not there", label(d)))
		} else if err != nil {
			return nil, err
		}
	}
	if len(out) == 0 {
		return fine("all of Heddle's kinds"), nil
	}
	return out, nil
}

// contains reports whether one of a pod's init containers or containers has a name.
func contains(p *corev1.Pod, name string) bool {
	is := func(c corev1.Container) bool { return c.Name == name }
	return slices.ContainsFunc(p.Spec.InitContainers, is) || slices.ContainsFunc(p.Spec.Containers, is)
}
