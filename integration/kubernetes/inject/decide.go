package inject

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// ProxyUID is the user of the sidecar, whose connections are not captured.
const ProxyUID = 1337

// system are the namespaces without which no pod starts: nothing there is ever injected.
var system = []string{"kube-system", "kube-public", "kube-node-lease"}

// Namespace is what is known of a pod's namespace.
type Namespace struct {
	Name   string
	Labels map[string]string
}

// Decision is whether a pod gets a sidecar, and why, in a sentence for people.
type Decision struct {
	Inject bool
	Reason string
}

func no(format string, args ...any) Decision { return Decision{false, fmt.Sprintf(format, args...)} }

// Decide decides by the labels of the pod and of its namespace. It repeats what the
// selectors of the webhook's configuration say, and so stays right where somebody changed
// that. The error is of a pod that is to have a sidecar and cannot.
func Decide(pod *corev1.Pod, ns Namespace, c Config) (Decision, error) {
	if d, out := never(pod, ns, c); out {
		return d, nil
	}
	rev := ns.Labels[RevisionLabel]
	if own := pod.Labels[RevisionLabel]; own != "" {
		rev = own
	}
	if rev == "" {
		rev = DefaultRevision
	}
	d, err := byLabel(pod, ns)
	if err != nil || !d.Inject {
		return d, err
	}
	if rev != c.Revision {
		return no("it belongs to revision %s (label %s), and this is revision %s", rev, RevisionLabel, c.Revision), nil
	}
	return d, check(pod)
}

// never finds pods that get no sidecar whatever their labels say.
func never(pod *corev1.Pod, ns Namespace, c Config) (Decision, bool) {
	switch by := pod.Annotations[Injected]; {
	case slices.Contains(system, ns.Name):
		return no("namespace %s belongs to Kubernetes itself", ns.Name), true
	case ns.Name == c.Namespace:
		return no("namespace %s belongs to the mesh itself", ns.Name), true
	case pod.Spec.HostNetwork:
		return no("it is in its node's network (hostNetwork) and has no traffic of its own that could be captured"), true
	case pod.Spec.OS != nil && pod.Spec.OS.Name != corev1.Linux, pod.Spec.NodeSelector[corev1.LabelOSStable] == "windows":
		return no("it is for Windows"), true
	case pod.Annotations[corev1.MirrorPodAnnotationKey] != "":
		return no("it is a static pod, which its node runs from a file; use heddle inject on that"), true
	case by != "" && by != c.Revision && HasSidecar(pod):
		return no("it has a sidecar of revision %s already", by), true
	}
	return Decision{}, false
}

// byLabel decides by the label of the pod, else by that of the namespace.
func byLabel(pod *corev1.Pod, ns Namespace) (Decision, error) {
	who, value := "it", pod.Labels[InjectLabel]
	if value == "" {
		who, value = "namespace "+ns.Name, ns.Labels[InjectLabel]
	}
	switch {
	case value == "enabled":
		return Decision{true, fmt.Sprintf("%s has the label %s=enabled", who, InjectLabel)}, nil
	case value == "disabled":
		return no("%s has the label %s=disabled", who, InjectLabel), nil
	case value == "":
		return no("neither it nor namespace %s has the label %s=enabled", ns.Name, InjectLabel), nil
	case who == "it":
		return no("its label %s is %q", InjectLabel, value), fmt.Errorf("label %s is %q: want enabled or disabled", InjectLabel, value)
	}
	return no("%s has the label %s=%s, which is neither enabled nor disabled", who, InjectLabel, value), nil
}

// HasSidecar tells whether a pod has a container of the sidecar's name.
func HasSidecar(pod *corev1.Pod) bool {
	ours := func(c corev1.Container) bool { return c.Name == proxyName }
	return slices.ContainsFunc(pod.Spec.InitContainers, ours) || slices.ContainsFunc(pod.Spec.Containers, ours)
}

// check finds what in a pod stands against a sidecar.
func check(pod *corev1.Pod) error {
	for _, c := range pod.Spec.Containers {
		if c.Name == proxyName || c.Name == initName {
			return fmt.Errorf("container %s has a name of the mesh's own; rename it", c.Name)
		}
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if user := userOf(pod, c); c.Name != proxyName && user != nil && *user == ProxyUID {
			return fmt.Errorf("container %s runs as user %d, which is the sidecar's: its traffic would go past the mesh; give it another runAsUser", c.Name, ProxyUID)
		}
	}
	return nil
}

// userOf is the user that a container asks for, itself or by its pod.
func userOf(pod *corev1.Pod, c corev1.Container) *int64 {
	if c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil {
		return c.SecurityContext.RunAsUser
	}
	if pod.Spec.SecurityContext != nil {
		return pod.Spec.SecurityContext.RunAsUser
	}
	return nil
}
