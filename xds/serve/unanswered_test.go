// SPDX-License-Identifier: Apache-2.0

package serve_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"fairlead.io/fairlead/xds"
	"fairlead.io/fairlead/xds/serve"
)

func TestAnErrorSaysWhatWasNotAnswered(t *testing.T) {
	s := serve.New(serve.Options{}, nil)
	c := start(t, s)()
	c.subscribe(cds)
	c.want("Cluster")
	var rs []xds.Resource
	for i := range 5 {
		rs = append(rs, resource(cds, fmt.Sprint("c", i), 1))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	go func() {
		m, _ := c.next()
		c.ack(m) // of c0 alone
	}()
	_, err := s.Push(ctx, append(set(rs...), serve.Set(resource(rds, "r", 1))))
	var late *serve.UnansweredError
	if !errors.As(err, &late) || !errors.Is(err, context.DeadlineExceeded) || len(late.Changes) != 4 || late.Changes[0].Name != "c1" {
		t.Fatalf("error %v, changes %+v", err, late)
	}
	if want := "wait for answers to Cluster c1, Cluster c2, Cluster c3, 1 more: context deadline exceeded"; err.Error() != want {
		t.Errorf("says %q, want %q", err, want)
	}
}

func TestARejectionSaysWhatIsKept(t *testing.T) {
	s := serve.New(serve.Options{}, []xds.Resource{resource(cds, "a", 1)})
	c := start(t, s)()
	c.subscribe(cds)
	c.want("Cluster a@1")
	p := push(t, s, set(resource(cds, "a", 2), resource(cds, "b", 1))...)
	for range 2 {
		m, _ := c.next()
		c.nack(m, "bad")
	}
	p.rejected("a", "b")
	if r := s.Status().Rejected; len(r) != 2 || r[0].Kept != "1" || r[1].Kept != "" {
		t.Errorf("rejected %+v", r)
	}
}
