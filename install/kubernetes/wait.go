package kubernetes

import (
	"context"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// WaitReady waits until all replicas of a Deployment are the newest and available, and the
// old ones gone: the API server keeps its connection to a webhook, and would ask one that
// is on its way out as it was configured before.
func (i *Installer) WaitReady(ctx context.Context, namespace, name string) error {
	client := i.client.Resource(schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}).Namespace(namespace)
	return poll(ctx, func() (string, error) {
		d, err := client.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return "", err
		}
		number := numbers(d)
		want := number("spec", "replicas")
		if number("status", "observedGeneration") >= d.GetGeneration() && number("status", "updatedReplicas") == want &&
			number("status", "availableReplicas") == want && number("status", "replicas") == want {
			return i.ending(ctx, d)
		}
		return fmt.Sprintf("Deployment %s/%s has %d of %d replicas available; %s", namespace, name, number("status", "availableReplicas"), want,
			i.whyNot(ctx, d)), nil
	})
}

// WaitNodes waits until a DaemonSet's newest pods are ready on all of its nodes.
func (i *Installer) WaitNodes(ctx context.Context, namespace, name string) error {
	client := i.client.Resource(schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "daemonsets"}).Namespace(namespace)
	return poll(ctx, func() (string, error) {
		d, err := client.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return "", err
		}
		number := numbers(d)
		want := number("status", "desiredNumberScheduled")
		if number("status", "observedGeneration") >= d.GetGeneration() && number("status", "updatedNumberScheduled") == want && number("status", "numberAvailable") == want {
			return "", nil
		}
		return fmt.Sprintf("DaemonSet %s/%s is ready on %d of %d nodes; %s", namespace, name, number("status", "numberAvailable"), want, i.whyNot(ctx, d)), nil
	})
}

// numbers reads the numbers of an object.
func numbers(o *unstructured.Unstructured) func(fields ...string) int64 {
	return func(fields ...string) int64 {
		n, _, _ := unstructured.NestedInt64(o.Object, fields...)
		return n
	}
}

// ending says which pods of a Deployment are on their way out.
func (i *Installer) ending(ctx context.Context, d *unstructured.Unstructured) (string, error) {
	pods, err := i.podsOf(ctx, d)
	if err != nil {
		return "", err
	}
	for _, p := range pods {
		if p.GetDeletionTimestamp() != nil {
			return fmt.Sprintf("pod %s/%s of before is ending", p.GetNamespace(), p.GetName()), nil
		}
	}
	return "", nil
}

func (i *Installer) podsOf(ctx context.Context, d *unstructured.Unstructured) ([]unstructured.Unstructured, error) {
	labels, _, _ := unstructured.NestedStringMap(d.Object, "spec", "selector", "matchLabels")
	pods, err := i.client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"}).Namespace(d.GetNamespace()).List(ctx,
		metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: labels})})
	if err != nil {
		return nil, err
	}
	return pods.Items, nil
}

// whyNot says what the pods of a Deployment or DaemonSet that is not available lack.
func (i *Installer) whyNot(ctx context.Context, d *unstructured.Unstructured) string {
	pods, err := i.podsOf(ctx, d)
	if err != nil || len(pods) == 0 {
		return "it has no pods yet; see kubectl describe " + strings.ToLower(d.GetKind())
	}
	var reasons []string
	for _, p := range pods {
		statuses, _, _ := unstructured.NestedSlice(p.Object, "status", "containerStatuses")
		for _, s := range statuses {
			status, _ := s.(map[string]any)
			if waiting, ok, _ := unstructured.NestedMap(status, "state", "waiting"); ok {
				reasons = append(reasons, fmt.Sprintf("pod %s: %v %v", p.GetName(), waiting["reason"], waiting["message"]))
			}
		}
	}
	if len(reasons) == 0 {
		return "its pods are starting"
	}
	return strings.Join(reasons, "; ")
}

// poll asks until there is nothing left to wait for; the error says what there was when
// the context ended.
func poll(ctx context.Context, ask func() (waitingFor string, err error)) error {
	last := ""
	for {
		waitingFor, err := ask()
		if err == nil && waitingFor == "" {
			return nil
		}
		if ctx.Err() == nil {
			if err != nil {
				waitingFor = err.Error()
			}
			last = waitingFor
		}
		select {
		case <-time.After(300 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%w: %s", context.Cause(ctx), last)
		}
	}
}
