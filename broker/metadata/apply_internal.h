/* What each record type does to an image under edit; image_edit.c has the table. */
#ifndef SUNDOG_BROKER_METADATA_APPLY_INTERNAL_H
#define SUNDOG_BROKER_METADATA_APPLY_INTERNAL_H

#include "broker/metadata/image_edit.h"

/* Above what one topic may have anywhere; a larger index in a log is damage. */
#define IMAGE_PARTITIONS_MAX 1000000

int apply_register_broker(struct image_edit *e, const void *body, struct err *err);
int apply_unregister_broker(struct image_edit *e, const void *body, struct err *err);
int apply_fence_broker(struct image_edit *e, const void *body, struct err *err);
int apply_unfence_broker(struct image_edit *e, const void *body, struct err *err);
int apply_broker_change(struct image_edit *e, const void *body, struct err *err);
int apply_config(struct image_edit *e, const void *body, struct err *err);
int apply_feature_level(struct image_edit *e, const void *body, struct err *err);
int apply_producer_ids(struct image_edit *e, const void *body, struct err *err);

/* Kept as they are (image_kept.c). */
int apply_client_quota(struct image_edit *e, const void *body, struct err *err);
int apply_ace(struct image_edit *e, const void *body, struct err *err);
int apply_remove_ace(struct image_edit *e, const void *body, struct err *err);
int apply_scram(struct image_edit *e, const void *body, struct err *err);
int apply_remove_scram(struct image_edit *e, const void *body, struct err *err);
int apply_delegation_token(struct image_edit *e, const void *body, struct err *err);
int apply_remove_delegation_token(struct image_edit *e, const void *body, struct err *err);
int apply_register_controller(struct image_edit *e, const void *body, struct err *err);

#endif
