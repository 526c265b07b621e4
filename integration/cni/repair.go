package cni

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/heddle-mesh/heddle/integration/kubernetes"
	"github.com/heddle-mesh/heddle/integration/kubernetes/inject"
	"github.com/heddle-mesh/heddle/proxy/capture"
)

// proxyContainer is the sidecar's name, by which its status is found.
const proxyContainer = "heddle-proxy"

// Repair finds pods of the mesh that were started while the plugin was not in place. It
// needs no look into their networks: their sidecars verify the capture themselves, and end
// with an exit code of its own if there is none. A pod that a controller makes anew is
// deleted; of any other there is an event, as nothing would bring it back.
type Repair struct {
	Client  *kubernetes.Client
	Node    string
	InPlace func() bool // whether a pod made now would be captured
	Log     *slog.Logger
}

// repairEvery is how often pods that could not be repaired are looked at again.
const repairEvery = 10 * time.Second

// Run repairs until the context ends.
func (r Repair) Run(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	tell := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: r.Client.NodePods(r.Node), ObjectType: new(corev1.Pod), Transform: slim,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { tell() }, UpdateFunc: func(any, any) { tell() }, DeleteFunc: func(any) { tell() },
		},
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		informer.RunWithContext(ctx)
	}()
	defer func() { <-done }()
	tick := time.NewTicker(repairEvery)
	defer tick.Stop()
	warned := map[types.UID]bool{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-tick.C:
		}
		if !r.InPlace() {
			continue // a new pod would be no better
		}
		there := map[types.UID]bool{}
		for _, item := range store.List() {
			pod := item.(*corev1.Pod)
			if uncaptured(pod) {
				there[pod.UID] = warned[pod.UID] || r.repair(ctx, pod)
			}
		}
		warned = there
	}
}

// slim leaves of a pod what is needed here.
func slim(item any) (any, error) {
	pod, ok := item.(*corev1.Pod)
	if !ok {
		return item, nil
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion, OwnerReferences: pod.OwnerReferences,
			Annotations: map[string]string{inject.Injected: pod.Annotations[inject.Injected]}, DeletionTimestamp: pod.DeletionTimestamp,
		},
		Spec:   corev1.PodSpec{NodeName: pod.Spec.NodeName},
		Status: corev1.PodStatus{Phase: pod.Status.Phase, InitContainerStatuses: pod.Status.InitContainerStatuses},
	}, nil
}

// uncaptured tells whether a pod's sidecar has ended, and not begun again, because there
// are no rules. One that runs has found them, or will tell in a moment.
func uncaptured(pod *corev1.Pod) bool {
	if pod.DeletionTimestamp != nil || pod.Annotations[inject.Injected] == "" || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return false
	}
	for _, s := range pod.Status.InitContainerStatuses {
		if s.Name != proxyContainer || s.State.Running != nil {
			continue
		}
		ended := s.State.Terminated
		if ended == nil {
			ended = s.LastTerminationState.Terminated
		}
		return ended != nil && ended.ExitCode == capture.ExitNotCaptured
	}
	return false
}

// repair deletes a pod, or warns of it, and tells whether nothing is left to do.
func (r Repair) repair(ctx context.Context, pod *corev1.Pod) bool {
	log := r.Log.With("pod", pod.Namespace+"/"+pod.Name)
	if owner := metav1.GetControllerOf(pod); owner != nil {
		switch err := r.Client.DeletePod(ctx, pod); {
		case err == nil:
			log.Info("deleted a pod that was started uncaptured", "owner", owner.Kind+" "+owner.Name)
		case !errors.Is(err, kubernetes.ErrConflict): // then it is not what it was, and we are told
			log.Warn("a pod was started uncaptured", "error", err)
		}
		return false // until it is gone
	}
	message := fmt.Sprintf("the pod was started while the CNI plugin was not in place on node %s; its sidecar refuses to run uncaptured. No controller would make it anew: delete it and create it again", pod.Spec.NodeName)
	if err := r.Client.Warn(ctx, pod, Name, "NotCaptured", message); err != nil {
		log.Warn("a pod was started uncaptured", "error", err)
		return false
	}
	log.Warn("a pod was started uncaptured, and nothing would make it anew: create it again")
	return true
}
