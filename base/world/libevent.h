/* libevent's event structs, which use a LIST_ENTRY of their own while being declared. */
#ifndef SUNDOG_BASE_WORLD_LIBEVENT_H
#define SUNDOG_BASE_WORLD_LIBEVENT_H

#pragma push_macro("LIST_ENTRY")
#undef LIST_ENTRY
#include <event2/event.h>
#include <event2/event_struct.h>
#pragma pop_macro("LIST_ENTRY")

#endif
