package inject

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Labels, of a namespace or a pod; the pod's go before.
const (
	InjectLabel   = "heddle.dev/inject" // enabled or disabled
	RevisionLabel = "heddle.dev/rev"
)

// Injected is the annotation that we leave on a pod: the revision that injected it.
const Injected = "heddle.dev/injected"

// DefaultRevision is that of namespaces and pods without the label.
const DefaultRevision = "default"

// Config is what all sidecars of a revision have in common.
type Config struct {
	Image, PullPolicy          string
	Revision                   string
	Namespace                  string // the mesh's own, where nothing is injected
	TrustDomain, ClusterDomain string
	ControlPlane               string   // HOST:PORT
	Roots                      []string // fingerprints of the mesh's root certificates, in hex
	Collector                  string   // HOST:PORT for traces, or ""
	CNI                        bool     // the CNI plugin captures traffic: no heddle-init
	Hold                       string   // HoldHook or HoldProbe
	Resources                  corev1.ResourceRequirements
}

// What holds the application back until the sidecar carries its traffic.
const (
	// HoldHook: a postStart hook of the sidecar, at once. One that is not ready in a minute
	// says why in the pod's status, and is started anew. With the CNI plugin it means
	// HoldProbe: the kubelet tells nobody the address of a pod while the hook of its first
	// container runs, and the control plane waits for that.
	HoldHook = "hook"
	// HoldProbe: a startup probe of the sidecar, which the kubelet asks once a second. It waits
	// for twenty minutes, and the log can be read meanwhile.
	HoldProbe = "probe"
)

// holds are all of them.
var holds = []string{HoldHook, HoldProbe}

// CheckHold is an error for what is not one of them.
func CheckHold(hold string) error {
	if !slices.Contains(holds, hold) {
		return fmt.Errorf("%q: it is one of %s", hold, strings.Join(holds, ", "))
	}
	return nil
}

func (c Config) hold() string {
	if c.CNI {
		return HoldProbe
	}
	return c.Hold
}

// DefaultConfig has all but the image and the roots.
func DefaultConfig() Config {
	return Config{
		PullPolicy: string(corev1.PullIfNotPresent), Hold: HoldHook, Revision: DefaultRevision, Namespace: "heddle-system",
		TrustDomain: "mesh.local", ClusterDomain: "cluster.local",
		ControlPlane: "heddle-controlplane.heddle-system.svc:15010",
		// An idle Envoy holds about 16 MiB of its own and the agent 11; the rest is room for
		// connections. The CPU is what an idle pair takes, so that it costs no placement.
		// There is no limit: a proxy that is held back or killed takes its application with it.
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("64Mi"),
		}},
	}
}
