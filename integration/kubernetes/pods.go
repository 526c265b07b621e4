package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/tools/cache"
)

// Pod gives a pod as it is now.
func (c *Client) Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	out := new(corev1.Pod)
	if err := c.core.Get().Namespace(namespace).Resource("pods").Name(name).Timeout(callTimeout).Do(ctx).Into(out); err != nil {
		return nil, fmt.Errorf("read pod %s/%s: %w", namespace, name, err)
	}
	return out, nil
}

// NodePods lists and watches the pods of a node.
func (c *Client) NodePods(node string) cache.ListerWatcher {
	return cache.NewListWatchFromClient(c.core, "pods", metav1.NamespaceAll, fields.OneTermEqualSelector("spec.nodeName", node))
}

// DeletePod deletes a pod if it is still exactly the given one; else the error is ErrConflict.
func (c *Client) DeletePod(ctx context.Context, pod *corev1.Pod) error {
	only := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID, ResourceVersion: &pod.ResourceVersion}}
	err := c.core.Delete().Namespace(pod.Namespace).Resource("pods").Name(pod.Name).Timeout(callTimeout).Body(only).Do(ctx).Error()
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		err = ErrConflict
	}
	if err != nil {
		return fmt.Errorf("delete pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// Warn writes an event about a pod, which kubectl describe shows.
func (c *Client) Warn(ctx context.Context, pod *corev1.Pod, component, reason, message string) error {
	now := metav1.Now()
	meta := objectMeta(pod.Namespace, "")
	meta.GenerateName = pod.Name + "."
	event := &corev1.Event{
		ObjectMeta:     meta,
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Type:           corev1.EventTypeWarning, Reason: reason, Message: message, Source: corev1.EventSource{Component: component, Host: pod.Spec.NodeName},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}
	if err := c.core.Post().Namespace(pod.Namespace).Resource("events").Timeout(callTimeout).Body(event).Do(ctx).Error(); err != nil {
		return fmt.Errorf("write an event about pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// NodeToken asks for a token of a service account that is good as long as a node exists,
// and so outlives the pod that asks for it.
func (c *Client) NodeToken(ctx context.Context, namespace, account, node string, life time.Duration) (token string, expires time.Time, err error) {
	seconds := int64(life.Seconds())
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &seconds, BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Node", APIVersion: "v1", Name: node},
	}}
	out := new(authenticationv1.TokenRequest)
	err = c.core.Post().Namespace(namespace).Resource("serviceaccounts").Name(account).SubResource("token").Timeout(callTimeout).Body(request).Do(ctx).Into(out)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("get a token for service account %s/%s on node %s: %w", namespace, account, node, err)
	}
	return out.Status.Token, out.Status.ExpirationTimestamp.Time, nil
}

// DaemonSetStays tells whether a DaemonSet is there and is to stay. Without the right to
// ask it is not: that was deleted with it.
func (c *Client) DaemonSetStays(ctx context.Context, namespace, name string) (bool, error) {
	var set struct{ Metadata metav1.ObjectMeta }
	data, err := c.core.Get().AbsPath("/apis/apps/v1/namespaces", namespace, "daemonsets", name).Timeout(callTimeout).Do(ctx).Raw()
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &set)
	}
	if err != nil {
		return false, fmt.Errorf("read DaemonSet %s/%s: %w", namespace, name, err)
	}
	return set.Metadata.DeletionTimestamp == nil, nil
}
