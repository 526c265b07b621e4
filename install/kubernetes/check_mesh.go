package kubernetes

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// rawClient reads paths of the API server that are no objects.
func rawClient(config *rest.Config) (rest.Interface, error) {
	own := rest.CopyConfig(config)
	own.GroupVersion, own.NegotiatedSerializer = &schema.GroupVersion{}, serializer.NewCodecFactory(runtime.NewScheme()).WithoutConversion()
	return rest.UnversionedRESTClientFor(own)
}

func (c *Checker) get(ctx context.Context, path string, into any) error {
	data, err := c.raw.Get().AbsPath(path).Do(ctx).Raw()
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// date is the API server's time, to the second.
func (c *Checker) date(ctx context.Context) (time.Time, error) {
	client, ok := c.raw.(*rest.RESTClient)
	if !ok {
		return time.Time{}, fmt.Errorf("no HTTP client")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.raw.Get().AbsPath("/version").URL().String(), nil)
	if err != nil {
		return time.Time{}, err
	}
	resp, err := client.Client.Do(r)
	if err != nil {
		return time.Time{}, err
	}
	defer resp.Body.Close()
	return http.ParseTime(resp.Header.Get("Date"))
}

func (c *Checker) deployments(ctx context.Context) ([]appsv1.Deployment, error) {
	all, err := list[appsv1.Deployment](ctx, c, "apps", "v1", "deployments", c.namespace)
	return slices.DeleteFunc(all, func(d appsv1.Deployment) bool { return d.Labels["app.kubernetes.io/name"] != "heddle-controlplane" }), err
}

func (c *Checker) controlPlane(ctx context.Context) ([]Finding, error) {
	found, err := c.deployments(ctx)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return []Finding{bad(Error, "heddle install", "namespace %s has no control plane", c.namespace)}, nil
	}
	var out []Finding
	for _, d := range found {
		want := int32(1)
		if d.Spec.Replicas != nil {
			want = *d.Spec.Replicas
		}
		look := fmt.Sprintf("kubectl -n %s describe pods -l app.kubernetes.io/instance=%s", c.namespace, d.Name)
		switch {
		case d.Status.AvailableReplicas == 0:
			out = append(out, bad(Error, look, "no replica of %s is available: pods of the mesh that start now wait for it", d.Name))
		case d.Status.AvailableReplicas < want:
			out = append(out, bad(Warning, look, "%d of %d replicas of %s are available", d.Status.AvailableReplicas, want, d.Name))
		case want < 2:
			out = append(out, bad(Warning, "heddle install --set controlPlane.replicas=2", "%s has one replica: while it is replaced, no pod of the mesh can start", d.Name))
		default:
			out = append(out, fine("%d of %d replicas of %s are available", d.Status.AvailableReplicas, want, d.Name)...)
		}
	}
	return out, nil
}

func (c *Checker) spread(ctx context.Context) ([]Finding, error) {
	pods, err := list[corev1.Pod](ctx, c, "", "v1", "pods", c.namespace)
	if err != nil {
		return nil, err
	}
	nodes, n := map[string]bool{}, 0
	for _, p := range pods {
		if p.Labels["app.kubernetes.io/name"] == "heddle-controlplane" && p.Status.Phase == corev1.PodRunning {
			nodes[p.Spec.NodeName], n = true, n+1
		}
	}
	if n > 1 && len(nodes) == 1 {
		return []Finding{bad(Warning, "kubectl -n "+c.namespace+" rollout restart deployment/heddle-controlplane", "all %d replicas are on one node, and go with it", n)}, nil
	}
	return fine("%d replicas on %d nodes", n, len(nodes)), nil
}

// hook is what is read of a webhook configuration.
type hook struct {
	Metadata metav1.ObjectMeta `json:"metadata"`
	Webhooks []struct {
		Name          string
		FailurePolicy string
		ClientConfig  struct {
			CABundle string
			Service  *struct{ Namespace, Name string }
		}
	}
}

func (c *Checker) hooks(ctx context.Context) ([]hook, error) {
	var out []hook
	for _, resource := range []string{"mutatingwebhookconfigurations", "validatingwebhookconfigurations"} {
		all, err := c.client.Resource(schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: resource}).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/part-of=heddle"})
		if err != nil {
			return nil, err
		}
		for _, item := range all.Items {
			var h hook
			data, err := json.Marshal(item.Object)
			if err == nil {
				err = json.Unmarshal(data, &h)
			}
			if err != nil {
				return nil, err
			}
			out = append(out, h)
		}
	}
	return out, nil
}

func (c *Checker) webhooks(ctx context.Context) ([]Finding, error) {
	hooks, err := c.hooks(ctx)
	if err != nil {
		return nil, err
	}
	if len(hooks) == 0 {
		return []Finding{bad(Error, "heddle install", "there are no webhooks: nobody gets a sidecar")}, nil
	}
	var out []Finding
	for _, h := range hooks {
		for _, w := range h.Webhooks {
			if why := certificate(w.ClientConfig.CABundle, c.now()); why != "" {
				out = append(out, bad(Error, "see the log of the control plane, which writes it within seconds", "webhook %s of %s: %s", w.Name, h.Metadata.Name, why))
			}
		}
	}
	if len(out) == 0 {
		return fine("%d webhook configurations with a certificate in time", len(hooks)), nil
	}
	return out, nil
}

// certificate says what is wrong with a bundle.
func certificate(bundle string, now time.Time) string {
	data, err := base64.StdEncoding.DecodeString(bundle)
	if err != nil || len(data) == 0 {
		return "has no certificate of the control plane's yet"
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return "has a certificate that cannot be read"
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "has a certificate that cannot be read: " + err.Error()
	}
	if now.After(cert.NotAfter) {
		return "has a certificate that expired on " + cert.NotAfter.Format(time.DateTime)
	}
	return ""
}

func (c *Checker) webhookEndpoints(ctx context.Context) ([]Finding, error) {
	hooks, err := c.hooks(ctx)
	if err != nil {
		return nil, err
	}
	slices, err := list[discoveryv1.EndpointSlice](ctx, c, "discovery.k8s.io", "v1", "endpointslices", c.namespace)
	if err != nil {
		return nil, err
	}
	ready := map[string]int{}
	for _, s := range slices {
		for _, e := range s.Endpoints {
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				ready[s.Labels[discoveryv1.LabelServiceName]]++
			}
		}
	}
	var out []Finding
	for _, h := range hooks {
		for _, w := range h.Webhooks[:min(1, len(h.Webhooks))] {
			s := w.ClientConfig.Service
			if s == nil || ready[s.Name] > 0 {
				continue
			}
			follows := "what it is for is not made"
			if w.FailurePolicy == "Ignore" {
				follows = "what it is for is made without asking it; of pods, without a sidecar"
			}
			out = append(out, bad(Error, "bring its control plane back, or delete the configuration: heddle uninstall --set revision=NAME",
				"%s asks Service %s/%s, which has no endpoint that is ready; %s", h.Metadata.Name, s.Namespace, s.Name, follows))
		}
	}
	if len(out) == 0 {
		return fine("are ready"), nil
	}
	return out, nil
}

func (c *Checker) root(ctx context.Context) ([]Finding, error) {
	deployments, err := c.deployments(ctx)
	if err != nil {
		return nil, err
	}
	name, also, fix := "heddle-root", "", "restore the Secret from a backup; a new root means that every pod of the mesh must be restarted"
	for _, d := range deployments {
		for _, arg := range d.Spec.Template.Spec.Containers[0].Args {
			if issuer, ok := strings.CutPrefix(arg, "--issuer-secret="); ok {
				name, also, fix = issuer, ", and in heddle-issued for replicas that restart", "see that its Certificate (cert-manager) is issued, or set identity.issuerSecret to another name"
			}
		}
	}
	_, err = c.client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}).Namespace(c.namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return []Finding{bad(Error, fix, "Secret %s/%s is not there", c.namespace, name)}, nil
	}
	if err != nil {
		return nil, err
	}
	return []Finding{bad(OK, "", "is in Secret %s/%s%s; whoever reads it can be anybody in the mesh, so keep it out of backups that are not encrypted", c.namespace, name, also)}, nil
}

func (c *Checker) labels(ctx context.Context) ([]Finding, error) {
	namespaces, err := list[corev1.Namespace](ctx, c, "", "v1", "namespaces", "")
	if err != nil {
		return nil, err
	}
	var out []Finding
	enabled := 0
	for _, n := range namespaces {
		switch value := n.Labels["heddle.dev/inject"]; value {
		case "enabled":
			enabled++
			for _, other := range []string{"istio-injection", "istio.io/rev", "linkerd.io/inject"} {
				if n.Labels[other] != "" || n.Annotations[other] != "" {
					out = append(out, bad(Error, "keep one of the two labels", "namespace %s is for Heddle and has %s, too", n.Name, other))
				}
			}
		case "", "disabled":
		default:
			out = append(out, bad(Error, fmt.Sprintf("kubectl label namespace %s heddle.dev/inject=enabled --overwrite", n.Name), "namespace %s has the label heddle.dev/inject=%s, which is neither enabled nor disabled", n.Name, value))
		}
	}
	if enabled == 0 {
		out = append(out, bad(Warning, "kubectl label namespace NAME heddle.dev/inject=enabled", "no namespace gets sidecars"))
	}
	if len(out) == 0 {
		return fine("%d namespaces get sidecars", enabled), nil
	}
	return out, nil
}

// pods lists the pods that are not ending, and the labels of such namespaces.
func (c *Checker) pods(ctx context.Context) ([]corev1.Pod, map[string]map[string]string, error) {
	namespaces, err := list[corev1.Namespace](ctx, c, "", "v1", "namespaces", "")
	if err != nil {
		return nil, nil, err
	}
	labels := map[string]map[string]string{}
	for _, n := range namespaces {
		if n.DeletionTimestamp == nil {
			labels[n.Name] = n.Labels
		}
	}
	pods, err := list[corev1.Pod](ctx, c, "", "v1", "pods", "")
	return slices.DeleteFunc(pods, func(p corev1.Pod) bool {
		return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed || p.DeletionTimestamp != nil
	}), labels, err
}

func (c *Checker) sidecars(ctx context.Context) ([]Finding, error) {
	pods, namespaces, err := c.pods(ctx)
	if err != nil {
		return nil, err
	}
	with := 0
	var without, waiting, broken []string
	for i := range pods {
		p := &pods[i]
		name := p.Namespace + "/" + p.Name
		if contains(p, "heddle-proxy") {
			with++
			for _, s := range p.Status.InitContainerStatuses {
				switch {
				case s.Name != "heddle-proxy":
				case waits(p, s, c.now()):
					waiting = append(waiting, name)
				case s.State.Waiting != nil && !starting(s) || s.RestartCount > 3:
					broken = append(broken, name)
				}
			}
			continue
		}
		wants := p.Labels["heddle.dev/inject"]
		if wants == "" {
			wants = namespaces[p.Namespace]["heddle.dev/inject"]
		}
		if wants == "enabled" && !p.Spec.HostNetwork {
			without = append(without, name)
		}
	}
	var out []Finding
	if len(without) > 0 {
		out = append(out, bad(Warning, "restart what owns them: kubectl rollout restart; heddle inject --explain "+without[0]+" says more",
			"%d pods that are to have a sidecar have none, as they are older than the label, or were made while the webhook could not be asked: %s", len(without), some(without)))
	}
	if len(waiting) > 0 {
		out = append(out, bad(Error, logs(waiting[0])+" says for what; where a hook holds the application back, a minute after the start", "%d sidecars wait, and their applications for them: %s", len(waiting), some(waiting)))
	}
	if len(broken) > 0 {
		out = append(out, bad(Error, logs(broken[0]), "%d sidecars do not run: %s", len(broken), some(broken)))
	}
	if len(out) == 0 {
		return fine("%d pods have one", with), nil
	}
	return out, nil
}

// startPatience is what a sidecar may take to start before that is worth a word.
const startPatience = 30 * time.Second

// waits reports whether a sidecar has not had all it needs for too long. The kubelet shows
// one whose hook holds back the application as one that it has not started.
func waits(p *corev1.Pod, s corev1.ContainerStatus, now time.Time) bool {
	since := p.Status.StartTime
	if s.State.Running != nil {
		since = &s.State.Running.StartedAt
	}
	unstarted := s.State.Running != nil && (s.Started == nil || !*s.Started)
	return (unstarted || starting(s)) && since != nil && now.Sub(since.Time) > startPatience
}

// starting reports whether a sidecar is in its hook, or was not ready in its hook's time.
func starting(s corev1.ContainerStatus) bool {
	return s.State.Waiting != nil && (s.State.Waiting.Reason == "PodInitializing" || s.State.Waiting.Reason == "PostStartHookError")
}

// logs is the command that shows what the sidecar of NAMESPACE/POD says.
func logs(name string) string {
	namespace, pod, _ := strings.Cut(name, "/")
	return fmt.Sprintf("kubectl -n %s logs %s -c heddle-proxy", namespace, pod)
}

// some lists the first few of names.
func some(names []string) string {
	if len(names) > 5 {
		return strings.Join(names[:5], ", ") + fmt.Sprintf(" and %d more", len(names)-5)
	}
	return strings.Join(names, ", ")
}

func (c *Checker) revisions(ctx context.Context) ([]Finding, error) {
	found, err := c.deployments(ctx)
	if err != nil {
		return nil, err
	}
	installed := map[string]bool{}
	for _, d := range found {
		installed[d.Labels["heddle.dev/rev"]] = true
	}
	pods, namespaces, err := c.pods(ctx)
	if err != nil {
		return nil, err
	}
	var out []Finding
	for name, labels := range namespaces {
		if rev := labels["heddle.dev/rev"]; rev != "" && name != c.namespace && !installed[rev] {
			out = append(out, bad(Error, "install it, or remove the label", "namespace %s has the label heddle.dev/rev=%s, and that revision is not installed: its pods get no sidecars", name, rev))
		}
	}
	orphans := map[string][]string{}
	for _, p := range pods {
		if by := p.Annotations["heddle.dev/injected"]; by != "" && !installed[by] {
			orphans[by] = append(orphans[by], p.Namespace+"/"+p.Name)
		}
	}
	for rev, names := range orphans {
		out = append(out, bad(Error, "restart them", "revision %s is not installed, and its pods find no control plane: %s", rev, some(names)))
	}
	if len(out) == 0 {
		return fine("%d installed", len(installed)), nil
	}
	return out, nil
}

// versions finds the sidecars that are not of their control plane's image.
func (c *Checker) versions(ctx context.Context) ([]Finding, error) {
	found, err := c.deployments(ctx)
	if err != nil {
		return nil, err
	}
	image := map[string]string{}
	for _, d := range found {
		image[d.Labels["heddle.dev/rev"]] = d.Spec.Template.Spec.Containers[0].Image
	}
	pods, _, err := c.pods(ctx)
	if err != nil {
		return nil, err
	}
	var others []string
	for _, p := range pods {
		want, known := image[p.Annotations["heddle.dev/injected"]]
		for _, container := range p.Spec.InitContainers {
			if container.Name == "heddle-proxy" && known && container.Image != want {
				others = append(others, fmt.Sprintf("%s/%s: %s", p.Namespace, p.Name, container.Image))
			}
		}
	}
	if len(others) > 0 {
		return []Finding{bad(Warning, "kubectl rollout restart what owns them, in the order that suits you", "%d sidecars are not of their control plane's version: %s", len(others), some(others))}, nil
	}
	return fine("all are of their control plane's version"), nil
}

// leftOut lists the ports that an auditor asks for: those without mutual TLS.
func (c *Checker) leftOut(ctx context.Context) ([]Finding, error) {
	pods, _, err := c.pods(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range pods {
		if ports := p.Annotations["heddle.dev/exclude-inbound-ports"]; ports != "" {
			names = append(names, fmt.Sprintf("%s/%s: %s", p.Namespace, p.Name, ports))
		}
	}
	if len(names) > 0 {
		return []Finding{bad(Warning, "see that nothing but what browsers or probes may call listens there", "ports of %d pods are open without TLS and policies (heddle.dev/exclude-inbound-ports): %s", len(names), some(names))}, nil
	}
	return fine("none"), nil
}
