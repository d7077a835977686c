// SPDX-License-Identifier: Apache-2.0

// Package remote reaches the agents of a cluster through its API server, as kubectl exec
// reaches a pod: no port of a node is open for it, and who may do it is the cluster's own
// question (create of pods/exec where the agents run).
package remote

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/streaming/pkg/httpstream" // client-go's errors are of this one, and not of apimachinery's

	"fairlead.io/fairlead/kube"
)

// Agents is the label selector of the agents' pods.
const Agents = "app.kubernetes.io/name=fairlead,app.kubernetes.io/component=agent"

// Container is the name of the agent's container in its pod.
const Container = "agent"

// Agent is one agent's pod.
type Agent struct {
	Node, Namespace, Pod string
	// Problem is why it cannot be asked; "" if it runs.
	Problem string
}

// List finds the agents of a cluster, sorted by node. Of several on a node, as in a
// rollout, the one that runs counts.
func List(ctx context.Context, cfg *rest.Config) ([]Agent, error) {
	c, err := kube.RESTClient(cfg, corev1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	var pods corev1.PodList
	err = c.Get().Resource("pods").VersionedParams(&metav1.ListOptions{LabelSelector: Agents}, scheme.ParameterCodec).Do(ctx).Into(&pods)
	if err != nil {
		return nil, fmt.Errorf("look for the agents' pods: %w", err)
	}
	found := map[string]Agent{}
	for i := range pods.Items {
		p := &pods.Items[i]
		a := Agent{p.Spec.NodeName, p.Namespace, p.Name, problem(p)}
		if had, ok := found[a.Node]; !ok || had.Problem != "" && a.Problem == "" {
			found[a.Node] = a
		}
	}
	out := make([]Agent, 0, len(found))
	for _, a := range found {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b Agent) int { return cmp.Compare(a.Node, b.Node) })
	return out, nil
}

// problem is why a pod's agent cannot be asked.
func problem(p *corev1.Pod) string {
	for _, c := range p.Status.ContainerStatuses {
		if c.Name == Container && c.State.Running != nil && p.DeletionTimestamp == nil {
			return ""
		}
	}
	if p.DeletionTimestamp != nil {
		return "it is being deleted"
	}
	return cmp.Or(Waits(p), "it does not run yet: "+string(p.Status.Phase))
}

// Waits is why a pod is not ready, in its own last words if there are any; "" if it is.
func Waits(p *corev1.Pod) string {
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		last := s.LastTerminationState.Terminated
		switch w := s.State.Waiting; {
		case w == nil:
		case last != nil && last.Message != "":
			return fmt.Sprintf("%s: %s", w.Reason, strings.TrimSpace(last.Message))
		case w.Message != "":
			return fmt.Sprintf("%s: %s", w.Reason, w.Message)
		default:
			return w.Reason
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Status != corev1.ConditionTrue && (c.Type == corev1.PodScheduled || c.Type == corev1.PodReady) {
			return cmp.Or(c.Message, c.Reason, "not ready yet")
		}
	}
	if len(p.Status.Conditions) == 0 {
		return "not scheduled yet"
	}
	return ""
}

// Dial runs a command beside an agent and is connected to its standard input and output.
// What the command says on standard error is in the error of Read. The connection ends with
// the context.
func Dial(ctx context.Context, cfg *rest.Config, a Agent, command ...string) (net.Conn, error) {
	c, err := kube.RESTClient(cfg, corev1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	at := c.Post().Namespace(a.Namespace).Resource("pods").Name(a.Pod).SubResource("exec").VersionedParams(&corev1.PodExecOptions{
		Container: Container, Command: command, Stdin: true, Stdout: true, Stderr: true,
	}, scheme.ParameterCodec).URL()
	exec, err := executor(cfg, at.String())
	if err != nil {
		return nil, fmt.Errorf("reach pod %s/%s: %w", a.Namespace, a.Pod, err)
	}
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(ctx)
	conn := &connection{Conn: near, cancel: cancel}
	go func() {
		var said lastWords
		err := exec.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: far, Stdout: far, Stderr: &said})
		conn.end(a, err, said.String())
		_ = far.Close() // only wakes the other end
		cancel()
	}()
	return conn, nil
}

// executor speaks WebSocket, or to older servers SPDY.
func executor(cfg *rest.Config, address string) (remotecommand.Executor, error) {
	web, err := remotecommand.NewWebSocketExecutor(cfg, "GET", address)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	spdy, err := remotecommand.NewSPDYExecutor(cfg, "POST", u)
	if err != nil {
		return nil, err
	}
	return remotecommand.NewFallbackExecutor(web, spdy, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
}

// connection is one end of a pipe whose other end is a command's.
type connection struct {
	net.Conn
	cancel context.CancelFunc

	mu  sync.Mutex
	err error // why the command has ended; nil: it runs, or ended well
}

func (c *connection) end(a Agent, err error, said string) {
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	if said != "" {
		err = errors.New(said)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = fmt.Errorf("pod %s/%s: %w", a.Namespace, a.Pod, err)
}

// Read gives what the command has written, and in the end why it failed, if it did.
func (c *connection) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if errors.Is(err, io.EOF) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.err != nil {
			err = c.err
		}
	}
	return n, err
}

// Write fails as Read does if the command has ended.
func (c *connection) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if errors.Is(err, io.ErrClosedPipe) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.err != nil {
			err = c.err
		}
	}
	return n, err
}

func (c *connection) Close() error {
	c.cancel()
	return c.Conn.Close()
}

// lastWords keeps the beginning of what a command says of its failure.
type lastWords struct{ bytes.Buffer }

func (w *lastWords) Write(b []byte) (int, error) {
	const most = 4096
	w.Buffer.Write(b[:min(len(b), max(0, most-w.Len()))])
	return len(b), nil
}

func (w *lastWords) String() string { return strings.TrimSpace(w.Buffer.String()) }
