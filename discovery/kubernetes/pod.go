package kubernetes

import (
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

const (
	// InjectedAnnotation is what the injector leaves on a pod, with its revision.
	InjectedAnnotation = "heddle.dev/injected"
	// OpenPortsAnnotation names ports of a pod that its sidecar leaves alone.
	OpenPortsAnnotation = "heddle.dev/exclude-inbound-ports"
	// ProxyContainer is the name of the sidecar in a pod.
	ProxyContainer = "heddle-proxy"
)

// Pod is what attestation must know of a pod.
type Pod struct {
	UID, ServiceAccount, Node string
	Addresses                 []netip.Addr // that are its own: none in its node's network
	Injected                  bool         // it has a sidecar
}

// pod is what is kept of a pod.
type pod struct {
	Pod
	created int64
	ending  bool // it is being deleted
	// ended pods are as good as gone: their addresses may be others' already.
	ended bool
	// workload is what it is in the mesh but for the zone; nil where it is not in the mesh,
	// or has no address yet.
	workload *mesh.Workload
}

func samePod(a, b *pod) bool { return reflect.DeepEqual(a, b) }

// gatewayPorts are those that a gateway opens for everybody.
var gatewayPorts = []uint16{mesh.GatewayPlainPort, mesh.GatewaySecurePort}

// podOf keeps what matters of a pod. Gateway is the namespace and service account of the
// pods that are proxies themselves.
func podOf(p *corev1.Pod, trustDomain string, gateway mesh.Name) *pod {
	meta := metaOf(mesh.KindWorkload, p)
	out := &pod{
		Pod:     Pod{UID: string(p.UID), ServiceAccount: p.Spec.ServiceAccountName, Node: p.Spec.NodeName, Injected: injected(p)},
		created: meta.Created, ending: p.DeletionTimestamp != nil,
		ended: p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed,
	}
	if out.ServiceAccount == "" {
		out.ServiceAccount = "default"
	}
	if !p.Spec.HostNetwork && !out.ended {
		for _, ip := range p.Status.PodIPs {
			out.Addresses = append(out.Addresses, addresses([]string{ip.IP})...)
		}
	}
	atGateway := gateway == mesh.Name{Namespace: p.Namespace, Name: out.ServiceAccount}
	if !out.Injected && !atGateway || len(out.Addresses) == 0 {
		return out
	}
	id, err := spiffeid.New(trustDomain, p.Namespace, out.ServiceAccount)
	if err != nil { // no name that Kubernetes allows is refused
		return out
	}
	out.workload = &mesh.Workload{
		Meta: meta, Identity: id, Labels: p.Labels, Node: p.Spec.NodeName,
		Addresses: oneOfEach(out.Addresses), Capture: mesh.Transparent, Pod: true, Ready: true,
		Open: ports(p.Annotations[OpenPortsAnnotation]),
	}
	if atGateway {
		out.workload.Capture, out.workload.Open = mesh.AtGateway, gatewayPorts
	}
	return out
}

// ports reads port numbers with commas between them. What is none was refused by the
// injector.
func ports(text string) []uint16 {
	var out []uint16
	for one := range strings.SplitSeq(text, ",") {
		if n, err := strconv.ParseUint(strings.TrimSpace(one), 10, 16); err == nil && n != 0 {
			out = append(out, uint16(n))
		}
	}
	return out
}

// injected reports whether a pod has a sidecar: the injector says so, and the container is
// there. A pod in its node's network is never of the mesh: it has no address of its own.
func injected(p *corev1.Pod) bool {
	isProxy := func(c corev1.Container) bool { return c.Name == ProxyContainer }
	return p.Annotations[InjectedAnnotation] != "" && !p.Spec.HostNetwork &&
		(slices.ContainsFunc(p.Spec.InitContainers, isProxy) || slices.ContainsFunc(p.Spec.Containers, isProxy))
}

// place gives the workload with its zone and the addresses that are still its own.
func (p *pod) place(zone string, own []netip.Addr) *mesh.Workload {
	w := *p.workload
	w.Zone, w.Addresses = zone, own
	return &w
}
